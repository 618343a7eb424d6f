// How often each of the 256 bit patterns of a tensor occurs (ops/patterns.hpp), and its first entry that is not finite.
//
// Counters of 32 bits in shared memory, cleared and added to the tensor's once per CUDA block: each lane of a warp has a
// table of its own in a bank of its own.
#include "cuda/kernels.hpp"
#include "cuda/lists.hpp"

namespace gradkern::cuda {
namespace {

constexpr int pattern_threads = 768, most_pattern_blocks = 264;
constexpr std::int64_t worth_block = 16384;  // entries: below, a block has more to do with its table

using Counter = unsigned long long;

constexpr int table_size = 256 * 32;

template <class F>
__global__ __launch_bounds__(pattern_threads, 2) void patterns_kernel(const typename F::container* x, std::int64_t size,
                                                                      Counter* counts, Counter* first_nonfinite) {
  using L = formats::Layout<F>;
  constexpr int together = 16;
  DYNAMIC_SHARED(unsigned, table);
  for (int i = threadIdx.x; i < table_size; i += pattern_threads) table[i] = 0;
  __syncthreads();
  std::int64_t first = -1;
  const auto count = [&](unsigned pattern, std::int64_t index) {
    atomicAdd(table + pattern * 32 + threadIdx.x % 32, 1u);
    if ((pattern & (L::sign - 1)) > L::max_finite && first < 0) first = index;
  };
  const std::int64_t thread = std::int64_t(blockIdx.x) * pattern_threads + threadIdx.x,
                     threads = std::int64_t(gridDim.x) * pattern_threads;
  const std::int64_t misaligned = reinterpret_cast<std::uintptr_t>(x) % 16;
  const std::int64_t head = min(size, std::int64_t(misaligned ? together - misaligned : 0)),
                     groups = (size - head) / together;
  if (thread < head) count(x[thread], thread);
#pragma unroll 1
  for (std::int64_t g = thread; g < groups; g += threads) {
    const uint4 four = load_128(x + head + g * together);
    const unsigned words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int j = 0; j < together; ++j) count(words[j / 4] >> (8 * (j % 4)) & 0xFF, head + g * together + j);
  }
  if (const std::int64_t last = head + groups * together + thread; last < size) count(x[last], last);
  if (first >= 0) atomicMin(first_nonfinite, static_cast<Counter>(first));
  __syncthreads();
  for (int i = threadIdx.x; i < table_size; i += pattern_threads)
    if (const unsigned found = table[i]) atomicAdd(counts + i / 32, static_cast<Counter>(found));
}

}  // namespace

int count_patterns(const executor::StatisticsArgs* args, std::int64_t* counts, std::int64_t* first_nonfinite,
                   Stream stream) {
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    if constexpr (ops::counts_patterns<F>) {
      const std::int64_t blocks = min(std::int64_t(most_pattern_blocks), (args->size + worth_block - 1) / worth_block);
      return launch(patterns_kernel<F>, static_cast<unsigned>(blocks), pattern_threads, table_size * sizeof(unsigned),
                    static_cast<stream_t>(stream), static_cast<const typename F::container*>(args->data), args->size,
                    reinterpret_cast<Counter*>(counts), reinterpret_cast<Counter*>(first_nonfinite));
    } else {
      return 1;  // cudaErrorInvalidValue: never asked
    }
  });
}

}  // namespace gradkern::cuda
