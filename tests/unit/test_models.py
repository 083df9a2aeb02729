import subprocess
import sys

import numpy as np
import pytest

from comask.data import Dataset
from comask.errors import ConfigError, MissingExtraError, UnknownNameError
from comask.models import MODELS, build_model, default_model

torch = pytest.importorskip("torch")

# Model: parameters and buffer entries on its usual data, of which batch norm's counters are one each.
SIZES = {
    "cnn": ("grey", 215_370, 0),
    "vgg11": ("colour", 9_228_362, 2 * 2752 + 8),
    "resnet18": ("colour", 11_173_962, 2 * 4800 + 20),
    "logistic": ("grey", 7_850, 0),
    "mlp": ("grey", 25_450, 0),
    "char_lstm": ("text", 815_945, 0),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dataset(kind):
    shape = {"grey": (1, 28, 28), "colour": (3, 32, 32), "text": (80,)}[kind]
    inputs = np.random.default_rng(0).integers(0, 65, (4, *shape), np.uint8)
    task, classes = ("text", 65) if kind == "text" else ("image", 10)
    targets = inputs if kind == "text" else np.arange(4, dtype=np.uint8)
    return Dataset(kind, task, inputs, targets, inputs, targets, classes)


def batch(kind):
    inputs = torch.from_numpy(dataset(kind).train_inputs)
    return inputs.long() if kind == "text" else inputs.float() / 64


def flat(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def test_every_model_has_a_stated_size():
    assert SIZES.keys() == MODELS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_sizes_shapes_and_gradients(name):
    kind, num_parameters, num_buffers = SIZES[name]
    model = build_model(name, dataset(kind), seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    assert sum(buffer.numel() for buffer in model.buffers()) == num_buffers
    logits = model(batch(kind))
    assert logits.shape == ((4, 80, 65) if kind == "text" else (4, 10))
    targets = torch.from_numpy(dataset(kind).train_targets).long()
    torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", SIZES)
def test_the_seed_alone_decides_the_weights(name):
    data = dataset(SIZES[name][0])
    torch.manual_seed(1)
    first = flat(build_model(name, data, seed=5))
    torch.manual_seed(2)
    assert torch.equal(first, flat(build_model(name, data, seed=5)))
    assert not torch.equal(first, flat(build_model(name, data, seed=6)))


def test_the_global_generators_are_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_model("cnn", dataset("grey"), seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["cnn", "vgg11", "resnet18"])
def test_channels_last_gives_the_same_logits(name):
    kind = SIZES[name][0]
    model = build_model(name, dataset(kind), seed=0)
    expected = model(batch(kind))
    model = model.to(memory_format=torch.channels_last)
    found = model(batch(kind).to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "logistic", "mlp"])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_models_of_any_image_take_both_usual_shapes(name, kind):
    assert build_model(name, dataset(kind), seed=0)(batch(kind)).shape == (4, 10)


def test_vgg11_without_batch_norm_has_no_buffers_and_biases_instead():
    model = build_model("vgg11", dataset("colour"), seed=0, batch_norm=False)
    assert list(model.buffers()) == []
    assert sum(parameter.numel() for parameter in model.parameters()) == 9_228_362 - 2752
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert 0.1 < model(images).std(dim=0).mean() < 1  # what tells images apart survives eight layers


def test_vgg11_says_which_images_it_takes():
    with pytest.raises(
        ConfigError, match=r"'vgg11' needs images of 32 to 63 pixels a side, got .*\(1, 28, 28\)"
    ):
        build_model("vgg11", dataset("grey"), seed=0)


def test_the_cnn_learns_in_a_few_steps():
    data = dataset("grey")
    model = build_model("cnn", data, seed=0)
    optimizer = torch.optim.Adam(model.parameters())
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch("grey")), torch.arange(4))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_char_lstm_does_not_look_ahead():
    model = build_model("char_lstm", dataset("text"), seed=0)
    symbols = batch("text")
    changed = symbols.clone()
    changed[:, 40:] = 0
    torch.testing.assert_close(model(changed)[:, :40], model(symbols)[:, :40])
    assert not torch.allclose(model(changed)[:, 40:], model(symbols)[:, 40:])


def test_default_models():
    assert default_model(dataset("grey")) == default_model(dataset("colour")) == "cnn"
    assert default_model(dataset("text")) == "char_lstm"


def test_wrong_choices_are_explained():
    with pytest.raises(UnknownNameError, match=r"Unknown model 'resnet'\. Did you mean 'resnet18'"):
        build_model("resnet", dataset("colour"), seed=0)
    with pytest.raises(
        ConfigError, match="'cnn' is for image data and 'text' is text data; use one of: char_lstm"
    ):
        build_model("cnn", dataset("text"), seed=0)
    with pytest.raises(ConfigError, match="use one of: cnn, vgg11, resnet18, logistic, mlp"):
        build_model("char_lstm", dataset("grey"), seed=0)


def test_without_torch_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "comask.models.mlp", raising=False)
    with pytest.raises(MissingExtraError, match=r"torch is not installed.*comask\[train\]"):
        build_model("mlp", dataset("grey"), seed=0)
    with pytest.raises(MissingExtraError, match=r"torch is not installed.*comask\[train\]"):
        MODELS["mlp"](input_shape=(1, 28, 28), num_classes=10)


def test_listing_models_and_data_does_not_import_heavy_packages():
    code = (
        "import sys, comask.models, comask.data; "
        "comask.data.load_dataset('fashion-mnist-mini'); "
        "print(sorted({'torch', 'matplotlib', 'rich', 'pooch', 'typer'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
