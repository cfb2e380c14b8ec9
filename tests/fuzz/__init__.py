"""Odd input of every kind, thrown at every command: what comes out is success, or status 1 or 2 with a line for people.

    make test                                                    # 200 examples, with a new seed that is printed
    python -m tests.fuzz --examples 20000 --processes 1000       # the campaign; `make fuzz`
    python -m tests.fuzz --examples 500 --only "run folders"

`values` and `files` draw what is odd, `scenarios` put it together, `watched` runs a scenario and says what is wrong.
"""
