# The executor that runs the CUDA kernels on the host, those kernels compiled as C++ against it, and the library of both.
# Tests link gradkern_cuda_on_host: the kernels, their table and the host's runtime.
add_library(gradkern_simt_runtime STATIC
  simt/block_runner.cpp
  simt/executor.cpp
  simt/fiber.cpp
  simt/memory.cpp
  simt/tensor_core.cpp
  simt/traffic.cpp
  base/thread_pool.cpp)
target_link_libraries(gradkern_simt_runtime PUBLIC gradkern_policy Threads::Threads)

list(TRANSFORM GRADKERN_CUDA_KERNELS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/ OUTPUT_VARIABLE kernels)
set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS -Wno-unknown-pragmas)
add_library(gradkern_cuda_on_host OBJECT ${kernels} cuda/runtime_host.cpp)
target_link_libraries(gradkern_cuda_on_host PUBLIC gradkern_simt_runtime)

add_library(gradkern_simt MODULE)
target_link_libraries(gradkern_simt PRIVATE gradkern_cuda_on_host)
install(TARGETS gradkern_simt DESTINATION gradkern)
