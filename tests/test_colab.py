"""In Colab the notebooks fetch what they need; anywhere else their first cell does nothing."""

import os
import re
import subprocess
import sysconfig
import tomllib
import venv

import nbformat
import pytest

from lib.paths import NOTEBOOKS, ROOT

TEMPLATES = sorted(NOTEBOOKS.glob("*.ipynb"))


def first_code_cell(path):
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def test_all_notebooks_begin_alike():
    assert len({first_code_cell(path) for path in TEMPLATES}) == 1
    assert "COLAB_RELEASE_TAG" in first_code_cell(TEMPLATES[0])


def test_the_badges_the_cell_and_the_package_name_one_repository():
    url = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert f'"{url}"' in first_code_cell(TEMPLATES[0])
    owner_and_name = url.removeprefix("https://github.com/")
    badges = re.findall(
        r"https://colab.research.google.com/github/(\S+?)/blob/main/(\S+?)\)", (ROOT / "README.md").read_text()
    )
    assert {repository for repository, _ in badges} == {owner_and_name}
    assert {path for _, path in badges} >= {"notebooks/train.ipynb", "notebooks/analysis.ipynb"}
    assert all((ROOT / path).exists() for _, path in badges)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An environment with our packages in which the study is not installed, as Colab's is."""
    folder = tmp_path_factory.mktemp("colab") / "environment"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    # of a folder that a .pth file names packages are found, but its own .pth files, such as that of pip -e, not read
    (folder / packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    assert subprocess.run([python, "-c", "import lib.study"], cwd=folder.parent, capture_output=True).returncode
    subprocess.run([python, "-m", "ipykernel", "install", "--sys-prefix"], capture_output=True, check=True)
    return python


def installed(python):
    """Names of all that is installed in the environment itself."""
    return sorted(path.name for path in python.parents[1].glob("lib/python*/site-packages/*"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this copy has no git history to clone")
def test_a_notebook_alone_in_an_empty_folder_trains(bare_python, tmp_path):
    empty = tmp_path / "content"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STUDY_")}
    environment |= {"COLAB_RELEASE_TAG": "test", "STUDY_REPOSITORY": ROOT.as_uri()}
    environment |= {"JUPYTER_PATH": str(bare_python.parents[1] / "share" / "jupyter")}
    command = [bare_python, "-m", "papermill", NOTEBOOKS / "train.ipynb", tmp_path / "out.ipynb", "-k", "python3"]
    before = installed(bare_python)
    for _ in range(2):  # the second time in a new kernel, as after a restart
        subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True, timeout=300)
    assert [path.name for path in empty.iterdir()] == ["se-resnet-study"]
    run = empty / "se-resnet-study" / "outputs" / "smoke" / "runs" / "se_resnet18" / "seed-00"
    assert (run / "summary.json").exists()
    assert installed(bare_python) == before  # torch is still what it was
