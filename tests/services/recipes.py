"""How the servers which the tests run against are built, and where they are kept.

Nothing here is a distribution or a container image: Kafka and Elasticsearch come as jars from Maven,
Jaeger, Prometheus and Alertmanager are built from their Go modules, a Collector by its own builder; Chromium is the
distribution's. Each lands in
`${TAILRACE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/tailrace}/services/NAME-VERSION/`, complete or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HEARTBEAT_SECONDS = 30
LOG_TAIL_LINES = 30
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
JAEGER_MODULE = "github.com/jaegertracing/jaeger"
PROMETHEUS_MODULE = "github.com/prometheus/prometheus"
ALERTMANAGER_MODULE = "github.com/prometheus/alertmanager"
COLLECTOR_BUILDER = "go.opentelemetry.io/collector/cmd/builder"
# What the benchmark's configurations (bench/peer) are made of, by the builder's own headings.
COLLECTOR_COMPONENTS = {
    "receivers": ("go.opentelemetry.io/collector/receiver/otlpreceiver", "contrib/receiver/kafkareceiver"),
    "processors": ("contrib/processor/tailsamplingprocessor",),
    "connectors": ("contrib/connector/spanmetricsconnector",),
    "exporters": (
        "contrib/exporter/kafkaexporter",
        "go.opentelemetry.io/collector/exporter/otlpexporter",
        "go.opentelemetry.io/collector/exporter/nopexporter",
    ),
    "extensions": ("contrib/extension/healthcheckv2extension",),
}
CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"

HOW_TO_GET = {
    "java": "a JDK 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)",
    "javac": "a JDK 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)",
    "mvn": "Maven 3.6 or newer (Debian: apt-get install maven)",
    "go": "Go 1.25 or newer",
    "apt-get": "Debian's or Ubuntu's, for its package libfaketime",
    "dpkg": "Debian's or Ubuntu's, for its package libfaketime",
    "chromium": "Chromium or Chrome (Debian: apt-get install chromium), or name one in $CHROMIUM",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

Say = Callable[[str], None]


class InstallError(RuntimeError):
    """A server cannot be built here; the message says what to do or how the build ended."""


@dataclass(frozen=True)
class Recipe:
    """How one server is built. Raise `revision` when the steps change but the version does not.

    `there` tells whether what the folder only points to is still there.
    """

    name: str
    version: str
    tools: tuple[str, ...]
    takes: str
    build: Callable[[Path, Say], object]
    revision: int = 1
    there: Callable[[Path], bool] = Path.exists


def cache() -> Path:
    """The folder which holds every installed server."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailrace"
    return Path(os.environ.get("TAILRACE_CACHE") or user).expanduser().resolve() / "services"


def ensure(name: str, say: Say | None = None) -> Path:
    """The folder of server `name`, built first if it is missing. Raises InstallError."""
    recipe = RECIPES[name]
    say = say or printer(recipe, 1, 1)
    target = cache() / f"{recipe.name}-{recipe.version}"
    if _is_current(target, recipe):
        return target
    for tool in recipe.tools:
        if shutil.which(tool) is None:
            raise InstallError(f"{recipe.name} {recipe.version} needs `{tool}` on PATH: install {HOW_TO_GET[tool]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock"), say):
        if _is_current(target, recipe):
            return target
        say(f"building, {recipe.takes}")
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f".{recipe.name}-", dir=target.parent) as scratch:
            built = Path(scratch) / "built"
            built.mkdir()
            recipe.build(built, say)
            (built / "revision").write_text(str(recipe.revision))
            if target.exists():
                target.rename(Path(scratch) / "outdated")
            built.rename(target)
        say(f"done in {time.monotonic() - started:.0f} s")
    return target


def _is_current(target: Path, recipe: Recipe) -> bool:
    try:
        return (target / "revision").read_text() == str(recipe.revision) and recipe.there(target)
    except FileNotFoundError:
        return False


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is installing it, waiting for that one")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], folder: Path, say: Say, env: Mapping[str, str] | None = None) -> str:
    """Run a build step, with a sign of life every HEARTBEAT_SECONDS; return its standard output."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        try:
            while True:
                try:
                    code = child.wait(HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    say(f"still running {' '.join(command[:2])} ({time.monotonic() - started:.0f} s)")
        except BaseException:
            child.kill()
            child.wait()
            raise
        out.seek(0)
        err.seek(0)
        printed = out.read()
        if code != 0:
            tail = "\n".join((printed + err.read()).splitlines()[-LOG_TAIL_LINES:])
            raise InstallError(f"`{' '.join(command)}` ended with {code}:\n{tail}")
        return printed


def _copy_jars(folder: Path, artifacts: Sequence[str], say: Say) -> Path:
    """Put the artifacts (`group:name:version`) and all they depend on into `folder`/libs."""
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in (artifact.split(":") for artifact in artifacts)
    )
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>tailrace</groupId><artifactId>jars</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    )
    run(["mvn", "-q", "-B", MAVEN_COPY, "-DoutputDirectory=libs"], folder, say)
    return folder / "libs"


def _kafka(version: str) -> Callable[[Path, Say], object]:
    # slf4j-simple 1.7, the line of Kafka's own slf4j-api: a 2.x binding would be ignored, and with it the log.
    jars = [f"org.apache.kafka:kafka_2.13:{version}", "org.slf4j:slf4j-simple:1.7.36"]
    return lambda folder, say: _copy_jars(folder, jars, say)


def _elasticsearch(folder: Path, say: Say) -> None:
    netty = f"org.elasticsearch.plugin:transport-netty4:{ELASTICSEARCH}"
    libs = _copy_jars(folder, [f"org.elasticsearch:elasticsearch:{ELASTICSEARCH}", netty], say)
    module = folder / "home" / "modules" / "transport-netty4"
    module.mkdir(parents=True)
    for jar in [*libs.glob("netty-*.jar"), *libs.glob("transport-netty4-*.jar")]:
        jar.rename(module / jar.name)  # a class in both places is "jar hell", and start-up is refused
    (module / "plugin-descriptor.properties").write_text(
        "name=transport-netty4\ndescription=HTTP and transport\njava.version=17\n"
        f"version={ELASTICSEARCH}\nelasticsearch.version={ELASTICSEARCH}\n"
        "classname=org.elasticsearch.transport.netty4.Netty4Plugin\n"
    )
    (folder / "home" / "plugins").mkdir()
    (folder / "home" / "config").mkdir()
    (folder / "home" / "config" / "elasticsearch.yml").touch()
    source = Path(__file__).with_name("ElasticsearchNode.java")
    run(["javac", "-cp", "libs/*", "-d", "classes", str(source)], folder, say)


def _jaeger(folder: Path, say: Say) -> None:
    # `go install` refuses a module whose go.mod has a replace; built in its own folder, the module's go.mod and
    # go.sum pin everything (a wrapper module would ask the checksum database anew, which lacks one dependency).
    download = ["go", "mod", "download", "-json", f"{JAEGER_MODULE}@v{JAEGER}"]
    source = json.loads(run(download, folder, say))["Dir"]
    build = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(folder / "jaeger")]
    run([*build, "./cmd/jaeger"], Path(source), say)


def _prometheus(folder: Path, say: Say) -> None:
    # v3.16.0 is published as Go module version v0.316.0. Without the tag a service discovery's dependency is missing.
    major, minor, patch = PROMETHEUS.split(".")
    commands = [f"{PROMETHEUS_MODULE}/cmd/{name}@v0.{major}{minor}.{patch}" for name in ("prometheus", "promtool")]
    install = ["go", "install", "-trimpath", "-ldflags=-s -w", "-tags", "remove_all_sd", *commands]
    run(install, folder, say, {"GOBIN": str(folder)})


def _alertmanager(folder: Path, say: Say) -> None:
    commands = [f"{ALERTMANAGER_MODULE}/cmd/{name}@v{ALERTMANAGER}" for name in ("alertmanager", "amtool")]
    run(["go", "install", "-trimpath", "-ldflags=-s -w", *commands], folder, say, {"GOBIN": str(folder)})


def _collector(folder: Path, say: Say) -> None:
    builder = folder / "builder"
    install = ["go", "install", "-trimpath", f"{COLLECTOR_BUILDER}@v{COLLECTOR}"]
    run(install, folder, say, {"GOBIN": str(folder)})
    with tempfile.TemporaryDirectory(prefix=".source-", dir=folder) as source:
        parts: dict[str, object] = {
            heading: [{"gomod": f"{module.replace('contrib/', f'{CONTRIB}/', 1)} v{COLLECTOR}"} for module in modules]
            for heading, modules in COLLECTOR_COMPONENTS.items()
        }
        parts["dist"] = {"name": "collector", "version": COLLECTOR, "output_path": source}
        manifest = Path(source) / "manifest.yaml"
        manifest.write_text(json.dumps(parts))  # JSON is YAML
        run([str(builder), "--config", str(manifest)], folder, say)
        (Path(source) / "collector").rename(folder / "collector")
    builder.unlink()


def _chromium(folder: Path, say: Say) -> None:
    """A link to the browser of this machine; where there is none, root gets it from the distribution."""
    found = browser()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        apt = ["apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=300"]
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run([*apt, "update"], folder, say, quiet)
        run([*apt, "install", "--no-install-recommends", "chromium"], folder, say, quiet)
        found = browser()
    if found is None:
        raise InstallError(f"the live page is tested in a browser: install {HOW_TO_GET['chromium']}")
    (folder / "chromium").symlink_to(found)


def _faketime(folder: Path, say: Say) -> None:
    """The library of Debian's package, unpacked here and not installed."""
    run(["apt-get", "download", "libfaketime"], folder, say)
    (package,) = folder.glob("*.deb")
    run(["dpkg", "-x", str(package), "."], folder, say)


def browser() -> str | None:
    """The path of a Chromium on this machine."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in BROWSERS if (path := shutil.which(name))), None)


KAFKA = "4.1.2"
KAFKA_3_9 = "3.9.2"  # the last line of 3.x, and with it the oldest brokers that are promised to work
ELASTICSEARCH = "8.19.0"
JAEGER = "1.76.0"
PROMETHEUS = "3.16.0"
ALERTMANAGER = "0.31.1"  # from 0.32 on it does not build as a module
COLLECTOR = "0.155.0"  # the newest whose kafkaexporter can be had (bench/peer)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("kafka", KAFKA, ("java", "mvn"), "about 20 s", _kafka(KAFKA)),
        Recipe("kafka-3.9", KAFKA_3_9, ("java", "mvn"), "about 20 s", _kafka(KAFKA_3_9)),
        Recipe("elasticsearch", ELASTICSEARCH, ("java", "javac", "mvn"), "about 20 s", _elasticsearch),
        Recipe("jaeger", JAEGER, ("go",), "minutes (3 to 6) when Go's caches are cold", _jaeger),
        Recipe("prometheus", PROMETHEUS, ("go",), "minutes (about 2) when Go's caches are cold", _prometheus),
        Recipe("alertmanager", ALERTMANAGER, ("go",), "about a minute when Go's caches are cold", _alertmanager),
        Recipe("collector", COLLECTOR, ("go",), "minutes (about 4) when Go's caches are cold", _collector),
        Recipe("faketime", "system", ("apt-get", "dpkg"), "a moment", _faketime),
        Recipe(
            "chromium",
            "system",
            (),
            "half a minute if it must be installed",
            _chromium,
            there=lambda folder: (folder / "chromium").exists(),
        ),
    )
}
ONLY_FOR_BENCH = frozenset({"collector", "faketime"})


def printer(recipe: Recipe, position: int, count: int) -> Say:
    """Progress lines for one of `count` servers."""
    return lambda text: print(f"[services {position}/{count}] {recipe.name} {recipe.version}: {text}", flush=True)
