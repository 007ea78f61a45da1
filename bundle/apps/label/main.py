"""What ``monailabel start_server --app`` looks for."""

from bundle.apps.label.app import RegistrationApp

__all__ = ["RegistrationApp"]
