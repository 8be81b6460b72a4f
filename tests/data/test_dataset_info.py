import subprocess
import sys


def test_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, litlab.data.dataset_info"
    loaded = "print([name for name in ('torch', 'numpy', 'lightning') if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", f"{code}; {loaded}"], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
