import pytest

from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer


@pytest.fixture
def fresh_model(mini_config: InstFormerConfig) -> InstFormer:
    return InstFormer(mini_config)
