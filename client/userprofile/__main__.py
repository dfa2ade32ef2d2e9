"""`python -m userprofile`: the command `userprofile`, for when its script isn't on the PATH."""

from userprofile_command import main

if __name__ == "__main__":
    main()
