# GRADKERN_CUDA: ON fails without a CUDA compiler, OFF does without CUDA, AUTO takes it where there is one. The compiler
# may be that of the PyPI wheels (nvidia-cuda-nvcc, -runtime, -cccl, -crt, nvidia-nvvm): it is looked for beside Python.
set(GRADKERN_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
option(GRADKERN_SIMT "Build the CUDA kernels for the host, too" ON)
set(GRADKERN_CUDA_ARCHITECTURES "80-real;90-real;100-real;120" CACHE STRING "GPU architectures")

set(GRADKERN_HAS_CUDA OFF)
if(NOT GRADKERN_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(GRADKERN_NVCC nvcc HINTS /usr/local/cuda/bin)
    if(NOT GRADKERN_NVCC)
      find_program(Python_EXECUTABLE NAMES python3 python) # find_package would find half of what pybind11 asks it for
      execute_process(COMMAND "${Python_EXECUTABLE}" -c
        "import nvidia, os; print(next(p for d in nvidia.__path__ for c in os.listdir(d) for p in [os.path.join(d, c)] if os.path.exists(os.path.join(p, 'bin', 'nvcc'))))"
        OUTPUT_VARIABLE wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE missing)
      if(NOT missing)
        set(GRADKERN_NVCC "${wheel}/bin/nvcc" CACHE FILEPATH "nvcc" FORCE)
      endif()
    endif()
    if(GRADKERN_NVCC)
      set(ENV{CUDACXX} "${GRADKERN_NVCC}")
    endif()
  endif()
  if(DEFINED ENV{CUDACXX})
    # The wheels have lib where a toolkit has lib64.
    get_filename_component(toolkit "$ENV{CUDACXX}" REALPATH)
    get_filename_component(toolkit "${toolkit}" DIRECTORY)
    get_filename_component(toolkit "${toolkit}" DIRECTORY)
    if(EXISTS "${toolkit}/lib/libcudart_static.a")
      set(ENV{CUDAFLAGS} "$ENV{CUDAFLAGS} -L${toolkit}/lib")
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES "${GRADKERN_CUDA_ARCHITECTURES}")
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
    set(GRADKERN_HAS_CUDA ON)
    message(STATUS "gradkern: CUDA kernels for ${GRADKERN_CUDA_ARCHITECTURES} with ${CMAKE_CUDA_COMPILER}")
  elseif(GRADKERN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "gradkern: GRADKERN_CUDA=ON, and no CUDA compiler was found")
  else()
    message(STATUS "gradkern: CPU only, no CUDA compiler was found")
  endif()
endif()

# Every kernel, in the order of executor/device.hpp. Directories name them relative to csrc/cuda.
set(GRADKERN_CUDA_KERNELS table.cu convert.cu product.cu mma.cu mma_half.cu
  mma_tfloat32.cu mma_float8.cu mma_halves.cu mma_pack.cu
  matvec.cu activation.cu statistics.cu patterns.cu errors.cu
  clip.cu clip_value.cu update.cu elementary.cu)
