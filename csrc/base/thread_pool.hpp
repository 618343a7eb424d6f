// A small pool that runs fixed chunks. Which thread runs a chunk is free; what a chunk computes is not, so results
// never depend on the number of threads. Own threads rather than OpenMP: libgomp hangs in a forked child.
#pragma once

#include <cstdint>
#include <functional>

namespace gradkern::base {

// Threads used by parallel_for, the caller included. Starts as GRADKERN_NUM_THREADS, else the processors of this
// process.
int num_threads();
void set_num_threads(int count);

// Whether the calling thread is running a chunk, and would run those of another region alone.
bool in_parallel_region();

// Calls body(chunk) for chunk = 0 .. chunks-1, and returns when all are done. The first exception is rethrown here.
// A nested call runs on the calling thread; a forked child starts threads of its own.
void parallel_for(std::int64_t chunks, const std::function<void(std::int64_t)>& body);

inline std::int64_t chunk_count(std::int64_t size, std::int64_t chunk) { return (size + chunk - 1) / chunk; }

}  // namespace gradkern::base
