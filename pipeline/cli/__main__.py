"""`python -m pipeline.cli`: the command `tinprep`, e.g. for `torch.distributed.run -m`."""

from pipeline.cli.app import run

if __name__ == "__main__":
    run()
