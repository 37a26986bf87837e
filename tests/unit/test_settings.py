# ruff: noqa: E501 (a table is read by its rows)
"""The settings file: what it accepts, and how every mistake is named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from servesync.errors import Reason, SettingsError
from servesync.settings import LoadLimits, Settings, Signature, TensorSpec
from servesync.settings_file import load_settings, service_variables

ROOT = Path(__file__).parents[2]
GOOD = """\
store:
  url: s3://acme/prod
serving:
  models_dir: /models
models:
  - name: m
"""


def load(tmp_path: Path, text: str | bytes, **environment: str) -> Settings:
    """Load settings from a file with this content."""
    path = tmp_path / "servesync.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_settings(path, environment)


def mistakes(tmp_path: Path, text: str | bytes, **environment: str) -> str:
    """Return the message that a bad file gets."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, **environment)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert str(tmp_path / "servesync.yaml") in str(caught.value)
    return str(caught.value)


def test_the_example_loads_and_shows_every_key() -> None:
    """`config.example.yaml` has every key that exists, with its default."""
    path = ROOT / "config.example.yaml"
    loaded = load_settings(path, {})
    shown: dict[str, Any] = yaml.safe_load(path.read_text())

    for section, model in Settings.model_fields.items():
        if section == "models":
            continue
        keys = getattr(model.annotation, "model_fields")  # noqa: B009 (the annotation is a model's class)
        assert sorted(shown[section]) == sorted(keys)
        for key, field in keys.items():
            if not field.is_required():
                assert getattr(getattr(loaded, section), key) == field.default
    assert sorted(shown["models"][0]) == ["labels", "name", "required", "signatures", "versions"]
    assert sorted(shown["verify"]["load"]) == sorted(LoadLimits.model_fields)


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    """Three keys are required, everything else has a default."""
    settings = load(tmp_path, GOOD)

    assert settings.store.bucket == "acme"
    assert settings.store.prefix == "prod/"
    assert settings.models[0].versions.latest == 1
    assert settings.verify.level == "checksum"


def test_the_environment_overrides(tmp_path: Path) -> None:
    """SERVESYNC_SECTION__KEY sets a key, in the form that YAML would have."""
    overrides = {
        "SERVESYNC_POLL__INTERVAL_SECONDS": "60",
        "SERVESYNC_SERVING__REST_URL": "null",
        "OTHER": "x",
    }
    settings = load(tmp_path, GOOD, **overrides)

    assert settings.poll.interval_seconds == 60
    assert settings.serving.rest_url is None


SERVICE = {
    "SERVESYNC_SERVICE_HOST": "10.96.0.7",
    "SERVESYNC_SERVICE_PORT": "9494",
    "SERVESYNC_SERVICE_PORT_ADMIN": "9494",
    "SERVESYNC_PORT": "tcp://10.96.0.7:9494",
    "SERVESYNC_PORT_9494_TCP": "tcp://10.96.0.7:9494",
    "SERVESYNC_PORT_9494_TCP_PROTO": "tcp",
    "SERVESYNC_PORT_9494_TCP_PORT": "9494",
    "SERVESYNC_PORT_9494_TCP_ADDR": "10.96.0.7",
    "SERVESYNC_ADMIN_SERVICE_HOST": "fd00::7",
    "SERVESYNC_ADMIN_SERVICE_PORT": "53",
    "SERVESYNC_ADMIN_PORT": "udp://[fd00::7]:53",
    "SERVESYNC_ADMIN_PORT_53_UDP_ADDR": "fd00::7",
    "SERVESYNC__ADMIN_SERVICE_HOST": "10.96.0.8",
    "SERVESYNC_EDGE__ADMIN_PORT_53_UDP_ADDR": "10.96.0.9",
}


def test_variables_of_a_service_are_no_settings(tmp_path: Path) -> None:
    """Kubernetes puts them into every pod if a Service is named `servesync`, or `servesync--admin`."""
    settings = load(tmp_path, GOOD, **SERVICE, SERVESYNC_ADMIN__PORT="9495")

    assert settings.admin.port == 9495
    assert service_variables(
        SERVICE | {"SERVESYNC_ADMIN__PORT": "9495", "OTHER_PORT": "tcp://x:1"}
    ) == sorted(SERVICE)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SERVESYNC_PORT", "9494", "SERVESYNC_PORT overrides nothing"),
        ("SERVESYNC_ADMIN_PORT", "9494", "SERVESYNC_ADMIN_PORT overrides nothing"),
        ("SERVESYNC_ADMIN__SERVICE_HOST", "10.96.0.7", "admin has no key 'service_host'"),
        ("SERVESYNC_ADMIN__PORT", "tcp://10.96.0.7:9494", "admin.port"),
        ("SERVESYNC_SERVICE_PORT", "all", "SERVESYNC_SERVICE_PORT overrides nothing"),
        ("SERVESYNC_SERVICE", "x", "SERVESYNC_SERVICE overrides nothing"),
        ("SERVESYNC_PORT_ADMIN_TCP", "tcp://10.96.0.7:9494", "SERVESYNC_PORT_ADMIN_TCP overrides nothing"),
    ],
)
def test_what_was_meant_as_a_setting_is_a_mistake(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    """Whoever forgets an underscore hears of it, also where a Service is named `servesync`."""
    assert expected in mistakes(tmp_path, GOOD, **SERVICE | {name: value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "pol:\n  x: 1\n", ["line 7: pol: unknown key", "poll"]),
        (GOOD.replace("url:", "uri:"), ["line 2: store.uri: unknown key", "store has url, endpoint_url", "store.url: this key is missing"]),
        (GOOD + "poll: {interval_seconds: fast}\n", ["line 7: poll.interval_seconds", "valid number, not 'fast'"]),
        (GOOD + "poll: {interval_seconds: 0}\n", ["poll.interval_seconds", "greater than or equal to 1, not 0"]),
        (GOOD + "poll: {interval_seconds: 1.0e+300}\n", ["poll.interval_seconds", "less than or equal to 86400"]),
        (GOOD + "limits: {max_members: true}\n", ["limits.max_members", "valid integer, not True"]),
        (GOOD + "limits: {max_members: '5'}\n", ["limits.max_members", "valid integer, not '5'"]),
        (GOOD + "admin: {host: localhost}\n", ["line 7: admin.host", "must be an address"]),
        (GOOD + "admin: {port: 65536}\n", ["admin.port", "less than or equal to 65535"]),
        (GOOD + "admin: {token_file: token}\n", ["admin.token_file", "must be an absolute path"]),
        (GOOD + "admin: {allowed_hosts: ['*']}\n", ["admin.allowed_hosts", "without wildcards"]),
        (GOOD + "verify: {load: {libraries: [os; rm]}}\n", ["verify.load.libraries[0]", "as import takes it"]),
        (GOOD + "verify: {load: {libraries: [/opt/ops.so]}}\n", ["verify.load.libraries[0]", "as import takes it"]),
        (GOOD + "verify: {load: {libraries: [tensorflow-text]}}\n", ["verify.load.libraries[0]", "as import takes it"]),
        (GOOD + "verify: {load: {libraries: tensorflow_text}}\n", ["verify.load.libraries: ", "list"]),
        (GOOD + "admin: {stuck_after_seconds: 1}\n", ["admin.stuck_after_seconds", "greater than or equal to 60"]),
        (GOOD + "log: {level: loud}\n", ["log.level", "'debug', 'info', 'warning' or 'error', not 'loud'"]),
        (GOOD + "store:\n  url: s3://b/c\n", ["line 7: store stands twice (first on line 1)"]),
        (GOOD.replace("models_dir: /models", "models_dir: models"), ["line 4: serving.models_dir", "absolute path"]),
        (GOOD.replace("models_dir: /models", "models_dir: /"), ["serving.models_dir"]),
        (GOOD.replace("models_dir: /models", "models_dir: /models\n  server_models_dir: models"), ["line 5: serving.server_models_dir", "absolute path"]),
        (GOOD.replace("models_dir: /models", "models_dir: /a/../b"), ["serving.models_dir"]),
        (GOOD.replace("models_dir: /models", "models_dir:"), ["line 4: serving.models_dir: must be an absolute path"]),
        (GOOD.replace("models_dir: /models", "models_dir: /models\n  config_file: 5"), ["line 5: serving.config_file: must be an absolute path"]),
        (GOOD.replace("models_dir: /models", 'models_dir: "/models\\0"'), ["line 4: serving.models_dir", "control characters"]),
        (GOOD.replace("models_dir: /models", 'models_dir: "/\\ud800"'), ["line 4: serving.models_dir", "control characters"]),
        (GOOD.replace("models_dir: /models", 'models_dir: /models\n  server_models_dir: "/srv\\n"'), ["line 5: serving.server_models_dir"]),
        (GOOD + 'admin: {token_file: "/token\\0"}\n', ["admin.token_file", "must be an absolute path"]),
        (GOOD + 'memory: {cgroup: "/c\\0"}\n', ["memory.cgroup", "must be the absolute path"]),
        (GOOD.replace("name: m", "name: .m"), ["line 6: models[0].name", "not start with a dot"]),
        (GOOD.replace("name: m", "name: no"), ["models[0].name", "valid string, not False"]),
        (GOOD + "  - name: m\n", ["models: named more than once: m"]),
        (GOOD.replace("- name: m", "- {name: m, versions: {latest: 0}}"), ["versions.latest", "not 0"]),
        (GOOD.replace("- name: m", "- {name: m, versions: {latest: 1, all: true}}"), ["exactly one of"]),
        (GOOD.replace("- name: m", "- {name: m, versions: {pin: []}}"), ["versions.pin"]),
        (GOOD.replace("s3://acme/prod", "https://acme/prod"), ["line 2: store.url", "s3://BUCKET"]),
        (GOOD.replace("s3://acme/prod", "s3://acme//prod"), ["store.url", "empty folder"]),
        (GOOD.replace("- name: m", "- {name: m, signatures: served}"), ["line 6: models[0].signatures: ", "valid dictionary, not 'served'"]),
        (GOOD.replace("- name: m", "- {name: m, signatures: {s: {inputs: {x: {dtype: flaot32}}, outputs: {}}}}"), ["line 6: models[0].signatures.s.inputs.x.dtype: ", "'float32'"]),
        (GOOD.replace("- name: m", "- {name: m, signatures: {s: {inputs: {}, outputs: {}, method: x}}}"), ["models[0].signatures.s.method: unknown key; models[0].signatures.s has inputs, outputs"]),
        (GOOD + "verify: {load: {wall_seconds: 0}}\n", ["verify.load.wall_seconds", "not 0"]),
        (GOOD + "verify: {load: {seconds: 1}}\n", ["verify.load.seconds: unknown key; verify.load has wall_seconds"]),
        ("store: [1\n", ["line 2", "not valid YAML"]),
        ("- a\n", ["the file must hold sections"]),
        ("", ["store: this key is missing", "models: this key is missing"]),
        (b"store: \xff\n", ["line 1: not UTF-8 (byte 0xff)"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
        ("x" * (2 << 20), ["larger than"]),
        (GOOD + "\0" * 100, ["line 7: not valid YAML: the character 0x00"]),
        (GOOD + "log: {level: !!bool maybe}\n", ["line 7: 'maybe' is no bool"]),
        (GOOD + "log: {level: !!int ''}\n", ["line 7: '' is no int"]),
        (GOOD + "log: {level: !!timestamp soon}\n", ["line 7: 'soon' is no timestamp"]),
        (GOOD + "log: {level: 2026-02-30}\n", ["line 7: '2026-02-30' is no timestamp"]),
        (GOOD + 'log: {level: "\\UFFFFFFFF"}\n', ["not valid YAML"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named(text: str | bytes, expected: list[str], tmp_path: Path) -> None:
    """Each mistake gets the file, the line or path of the key, and what is allowed."""
    message = mistakes(tmp_path, text)

    assert [part for part in expected if part not in message] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", None),
        ("as_served", "as_served"),
        (
            "{s: {inputs: {x: {dtype: int8, shape: [null, 2]}}, outputs: {}}}",
            {"s": Signature(inputs={"x": TensorSpec(dtype="int8", shape=[None, 2])}, outputs={})},
        ),
    ],
)
def test_expected_signatures(text: str, expected: object, tmp_path: Path) -> None:
    """None, those now served, or a table."""
    settings = load(tmp_path, GOOD.replace("- name: m", f"- {{name: m, signatures: {text}}}"))

    assert settings.models[0].signatures == expected


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """Nobody has to start the agent five times to find five mistakes."""
    text = GOOD + "poll: {interval_seconds: 0, jitter_seconds: -1}\nlog: {format: xml}\n"

    assert mistakes(tmp_path, text).count("\n") == 3


def test_a_chain_of_aliases_is_bounded(tmp_path: Path) -> None:
    """The billion laughs end with a message, not with the machine's memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    assert "aliases" in mistakes(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    "value", ["2026-02-30", "!!bool maybe", "!!int ''", "9" * 5000, "[" * 5000, '"\\UFFFFFFFF"']
)
def test_an_override_that_is_no_yaml_is_a_text(value: str, tmp_path: Path) -> None:
    """It is refused with the name of its setting, as any other text would be."""
    assert "poll.interval_seconds" in mistakes(tmp_path, GOOD, SERVESYNC_POLL__INTERVAL_SECONDS=value)


@pytest.mark.parametrize("name", ["SERVESYNC_POL__X", "SERVESYNC_POLL", "SERVESYNC_POLL__INTERVALL_SECONDS"])
def test_an_unknown_override_is_refused(name: str, tmp_path: Path) -> None:
    """A typo in the environment is as bad as one in the file."""
    assert name in mistakes(tmp_path, GOOD, **{name: "1"})


@pytest.mark.parametrize(
    ("endpoint", "accepted"),
    [
        ("https://minio.example", True),
        ("http://127.0.0.1:9000", True),
        ("http://localhost:9000", True),
        ("http://[::1]:9000", True),
        ("http://minio:9000", False),
        ("http://127.0.0.1@evil.example", False),
        ("https://user:pass@minio.example", False),
        ("https://169.254.169.254", False),
        ("https://[::ffff:169.254.169.254]", False),
        ("https://2852039166", False),
        ("file:///etc/passwd", False),
        ("gopher://x", False),
        ("https://", False),
    ],
)
def test_endpoints(endpoint: str, accepted: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """No clear text to another host, no metadata service, no credentials in the URL."""
    text = GOOD.replace("  url:", f"  endpoint_url: '{endpoint}'\n  url:")

    if accepted:
        assert load(tmp_path, text).store.endpoint_url == endpoint
    else:
        assert "endpoint_url" in mistakes(tmp_path, text)


def test_clear_text_can_be_allowed_explicitly(tmp_path: Path) -> None:
    """A MinIO inside a cluster is reachable, once somebody has said so."""
    text = GOOD.replace(
        "  url:", "  endpoint_url: http://minio:9000\n  allow_insecure_endpoint: true\n  url:"
    )

    assert load(tmp_path, text).store.endpoint_url == "http://minio:9000"


@pytest.mark.parametrize("pattern", ["{model}", "{model}{version}", "/{model}/{version}", "{model}/{version}{version}", "{model}/{version}/{model}{version}", "{model}/{x}/{version}", "{model}/1"])  # fmt: skip
def test_bad_key_patterns(pattern: str, tmp_path: Path) -> None:
    """Both placeholders, with something between any two."""
    text = GOOD.replace("  url:", f"  key_pattern: '{pattern}'\n  url:")

    assert "store.key_pattern" in mistakes(tmp_path, text)


@pytest.mark.parametrize("pattern", ["{model}/{version}/{model}-{version}", "{version}/{model}/{version}", "{model}/{version}/data/model"])  # fmt: skip
def test_good_key_patterns(pattern: str, tmp_path: Path) -> None:
    """A placeholder may occur again, and folders may follow the number."""
    text = GOOD.replace("  url:", f"  key_pattern: '{pattern}'\n  url:")

    assert load(tmp_path, text).store.key_pattern == pattern


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    """Neither is read as empty settings."""
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(SettingsError, match="give the file that holds the settings"):
            load_settings(path, {})


LABELLED = """\
store:
  url: s3://acme/prod
serving:
  models_dir: /models
  config_file: /etc/tfs/models.config
  allow_version_labels_for_unavailable_models: true
models:
  - name: m
    labels: {stable: {channel: main}, canary: 7}
"""


def test_labels_name_versions_and_channels(tmp_path: Path) -> None:
    """A number alone is a version."""
    labels = load(tmp_path, LABELLED).models[0].labels

    assert labels is not None
    assert {name: (target.version, target.channel) for name, target in labels.items()} == {
        "stable": (None, "main"),
        "canary": (7, None),
    }


@pytest.mark.parametrize("place", ["/models", "/models/cache", "/models/m", "/"])
def test_a_cache_lies_where_no_server_looks(place: str, tmp_path: Path) -> None:
    """Neither in the models directory, nor around it."""
    text = LABELLED.replace("store:\n", f"store:\n  cache_dir: {place}\n")
    assert text != LABELLED
    assert "cache_dir" in mistakes(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  config_file: /etc/tfs/models.config\n", "", "need serving.config_file"),
        ("  allow_version_labels_for_unavailable_models: true\n", "", "exits at every start with labels"),
        ("  models_dir: /models\n", "  models_dir: /models\n  rest_url: null\n", "need serving.rest_url"),
        ("canary: 7", "canary: -1", "labels.canary.version"),
        ("canary: 7", "canary: true", "labels.canary"),
        ("canary: 7", "canary: {}", "a version's number or channel: NAME"),
        ("canary: 7", "canary: {version: 7, channel: x}", "a version's number or channel: NAME"),
        ("canary: 7", "a/b: 7", "labels"),
        ("/etc/tfs/models.config", "models.config", "absolute path"),
        ("/etc/tfs/models.config", "/models/m/5", "must not lie in a folder below models_dir"),
    ],
)
def test_bad_labels_and_places(old: str, new: str, expected: str, tmp_path: Path) -> None:
    """What nobody would write, what the server could not start with, and where it would see a version."""
    assert old in LABELLED
    assert expected in mistakes(tmp_path, LABELLED.replace(old, new))


def test_the_file_may_lie_beside_the_models(tmp_path: Path) -> None:
    """Directly in the models directory no server scans it."""
    text = LABELLED.replace("/etc/tfs/models.config", "/models/models.config")

    assert load(tmp_path, text).serving.config_file == Path("/models/models.config")
