// What a CUDA kernel sees when a host compiler compiles it; cuda/platform.hpp lists the names.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "simt/collectives.hpp"
#include "simt/executor.hpp"
#include "simt/half.hpp"
#include "simt/intrinsics.hpp"
#include "simt/memory.hpp"
#include "simt/tensor_core.hpp"
#include "simt/traffic.hpp"
#include "simt/types.hpp"

#define threadIdx (::gradkern::simt::running->index)
#define blockIdx (::gradkern::simt::running->block->index)
#define blockDim (::gradkern::simt::running->block->launch->size)
#define gridDim (::gradkern::simt::running->block->launch->grid)
#define warpSize (::gradkern::simt::warp_size)

#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::gradkern::simt::running->block->dynamic_shared)

namespace gradkern::cuda {

using stream_t = void*;

inline int thread_anew() { return static_cast<int>(threadIdx.x); }
inline int kept(int x) { return x; }

// Runs the kernel; 0, or an error whose text launch_error gives.
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), simt::Grid grid, dim3 block, std::size_t dynamic_bytes, stream_t,
           Arguments... arguments) {
  return simt::run({grid, block, dynamic_bytes, [=] { kernel(arguments...); }}, grid.launcher);
}

inline const char* launch_error(int error) { return error ? simt::last_error() : "no error"; }

}  // namespace gradkern::cuda
