# The executor that runs the CUDA kernels on the host. gradkern_cuda_on_host(<target> <file.cu>...) adds kernels to a
# target, compiled as C++ against it.
add_library(gradkern_simt_runtime STATIC
  simt/block_runner.cpp
  simt/executor.cpp
  simt/fiber.cpp
  simt/memory.cpp
  simt/tensor_core.cpp
  simt/traffic.cpp
  base/thread_pool.cpp)
target_link_libraries(gradkern_simt_runtime PUBLIC gradkern_policy Threads::Threads)

function(gradkern_cuda_on_host target)
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS -Wno-unknown-pragmas)
  target_sources(${target} PRIVATE ${ARGN})
endfunction()
