"""python -m losskernel.cli"""

from losskernel.cli import main

main()
