# CMake generated Testfile for 
# Source directory: /tmp/wt-devlists
# Build directory: /tmp/wt-devlists/.build-asan
# 
# This file includes the relevant testing commands required for 
# testing this directory and lists subdirectories to be tested as well.
subdirs("csrc")
subdirs("tests/native")
