# Clang, whichever version is installed.
find_program(GRADKERN_CLANG NAMES clang++ clang++-20 clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14
  REQUIRED)
set(CMAKE_CXX_COMPILER ${GRADKERN_CLANG})
