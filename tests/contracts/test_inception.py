from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.generation.weights import fit_state, load_network, save_network
from adanat_rl.metrics.inception import InceptionExtractor, InceptionV3, convert_official_state
from adanat_rl.metrics.resize import TORCH_FIDELITY, VENDORED
from tests.contracts.fill import digest, filled, noise
from tests.contracts.parity import ParityModule

MODULE = ParityModule("inception")
LAYERS = {"f64": "MaxPool_1", "f192": "MaxPool_2", "f768": "Mixed_6e"}


def rows() -> list[dict]:
    return MODULE.description["state"]


def official_state() -> dict[str, torch.Tensor]:
    """The weights by rule, as the published file would hold them; counters keep what they are made with."""
    description = MODULE.description
    overrides = [tuple(row) for row in description["overrides"]]
    return {
        row["name"]: torch.zeros((), dtype=torch.int64)
        if row["dtype"] == "int64"
        else torch.from_numpy(filled(row["name"], row["shape"], description["seed"], overrides))
        for row in rows()
    }


def image_by_rule() -> torch.Tensor:
    coarse = noise("inception.image.coarse", (2, 3, 16, 16)).repeat(16, axis=2).repeat(16, axis=3)
    fine = noise("inception.image.fine", (2, 3, 256, 256))
    image = np.float32(0.5) + np.float32(0.2) * coarse + np.float32(0.05) * fine
    np.testing.assert_allclose(digest(np.clip(image, 0, 1)), MODULE["image_digest"], rtol=1e-7)
    return torch.from_numpy(np.clip(image, 0, 1))


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    network = InceptionV3()
    network.load_state_dict(official_state())
    return network


@pytest.fixture(scope="module")
def outputs(network: InceptionV3) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    hooks = [
        network.get_submodule(layer).register_forward_hook(
            lambda module, args, output, name=name: found.__setitem__(name, output.mean(dim=(2, 3)))
        )
        for name, layer in LAYERS.items()
    ]
    found["f2048"], found["flogits_unbiased"] = InceptionExtractor(network, VENDORED).features_and_logits(
        image_by_rule()
    )
    for hook in hooks:
        hook.remove()
    return found


def test_names_shapes_order_and_number_of_parameters_are_the_official_ones(network: InceptionV3) -> None:
    found = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    assert found == [(row["name"], row["shape"]) for row in rows()]
    assert sum(p.numel() for p in network.parameters()) == MODULE.description["n_params"]


@pytest.mark.parametrize("name", sorted(MODULE.outputs()))
def test_features_are_those_of_the_official_extractor(outputs: dict[str, torch.Tensor], name: str) -> None:
    MODULE.check(name, outputs[name])


def test_the_other_convention_gives_other_features(network: InceptionV3) -> None:
    with pytest.raises(AssertionError, match="f2048"):
        MODULE.check("f2048", InceptionExtractor(network, TORCH_FIDELITY)(image_by_rule()))


def test_a_wrong_norm_eps_is_noticed() -> None:
    network = InceptionV3()
    network.load_state_dict(official_state())
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 1e-5
    with pytest.raises(AssertionError, match="f2048"):
        MODULE.check("f2048", InceptionExtractor(network, VENDORED)(image_by_rule()))


def test_the_official_file_is_taken_with_and_without_counters_and_auxiliary_classifier(tmp_path, network) -> None:
    old = {name: value for name, value in official_state().items() if "num_batches" not in name}
    old["AuxLogits.fc.bias"] = torch.zeros(1008)
    for state in (official_state(), old):
        fresh = InceptionV3()
        fit_state(fresh, convert_official_state(state), tmp_path / "official.pth")
        assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), network.parameters(), strict=True))


def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(tmp_path) -> None:
    state = official_state()
    del state["Mixed_6b.branch7x7_2.conv.weight"]
    with pytest.raises(UserError, match=r"lacks: Mixed_6b\.branch7x7_2\.conv\.weight"):
        fit_state(InceptionV3(), convert_official_state(state), tmp_path / "official.pth")


def test_another_inception_is_refused() -> None:
    with pytest.raises(UserError, match=r"it is \[1000, 2048\]; torchvision's"):
        convert_official_state({"fc.weight": torch.zeros(1000, 2048)})
    with pytest.raises(UserError, match="there is none"):
        convert_official_state({"weight": torch.zeros(3)})


def test_a_saved_network_is_loaded_again(tmp_path, network: InceptionV3) -> None:
    save_network(tmp_path / "inception.safetensors", "inception", {}, network)
    again = load_network(tmp_path / "inception.safetensors", {"inception": InceptionV3})
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
