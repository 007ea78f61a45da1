"""Fixtures shared by the tests: grids, files, parts of the configurations."""

import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigParser
from toys import Grid, oblique_affine

from bundle.system.configurations import find_configurations

# On volumes this small threads cost more than they give: twenty times more where other processes use the cores too.
torch.set_num_threads(1)

WORKFLOWS = {"command", "trained", "finished", "whole", "user", "server"}
"""Fixtures that run whole workflows; `make quick` leaves out what asks for one."""


def pytest_collection_modifyitems(items):
    for item in items:
        if WORKFLOWS & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def fixed_grid():
    """Oblique, anisotropic, not cubic, right-handed."""
    return Grid(oblique_affine((1.3, 0.9, 1.7), (12, -8, 20), (-10.0, 25.0, 40.0)), (17, 21, 14))


@pytest.fixture
def moving_grid():
    """Oblique, anisotropic, not cubic, left-handed, elsewhere."""
    return Grid(oblique_affine((1.1, 1.6, 1.2), (-15, 10, 5), (14.0, 22.0, 38.0), mirrored=(0,)), (21, 16, 20))


@pytest.fixture
def save_nifti():
    """Write an array as NIfTI with sform and, unless told otherwise, qform."""

    def save(path, array, affine, qform=True):
        image = nib.Nifti1Image(array, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine if qform else None, code=1 if qform else 0)
        nib.save(image, path)
        return str(path)

    return save


@pytest.fixture
def content():
    """Component of a configuration file, with some of its values replaced; without maps unless they are asked for."""

    def parsed(file, identifier, **values):
        parser = ConfigParser()
        parser.read_config(find_configurations(file))
        for key, value in {"map_weights": None, **values}.items():
            parser[key] = value
        return parser.get_parsed_content(identifier)

    return parsed


@pytest.fixture
def local_net(content):
    """Small LocalNet as ``network_def`` of the configuration makes it, with weights that are not the identity."""
    torch.manual_seed(0)
    network = content("train.yaml", "network_def", channels=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network
