"""The bundle in other people's programs; each application has its own pinned requirements."""
