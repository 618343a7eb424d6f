// Kernels that are wrong: each must end with an error that says where, or with results that show it; and the launch
// after it must be well. And the counters of traffic, on access patterns whose cost is known. On the host only.
#include <cmath>
#include <string>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "kernel_array.hpp"
#include "simt_kernels.hpp"

namespace gradkern::test {
namespace {

// Each kernel lies this many lines below the constant in front of it.
constexpr int half_waits_line = __LINE__ + 2;
__global__ void half_waits(int* out) {
  if (threadIdx.x < 48) __syncthreads();
  out[threadIdx.x] = 1;
}
constexpr int two_barriers_line = __LINE__ + 3;
__global__ void two_barriers() {
  if (threadIdx.x < 48) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
constexpr int barrier_or_shuffle_line = __LINE__ + 2;
__global__ void barrier_or_shuffle(int* out) {
  if (threadIdx.x == 3) __syncthreads();
  out[threadIdx.x] = __shfl_xor_sync(whole_warp, static_cast<int>(threadIdx.x), 1);
}
constexpr int lane_returned_line = __LINE__ + 3;
__global__ void lane_returned(int* out) {
  if (threadIdx.x == 37) return;
  out[threadIdx.x] = static_cast<int>(__ballot_sync(whole_warp, 1));
}
constexpr int mask_without_caller_line = __LINE__ + 1;
__global__ void mask_without_caller() { __syncwarp(0xFFFFFFFEu); }
constexpr int two_masks_line = __LINE__ + 1;
__global__ void two_masks() { __syncwarp(threadIdx.x == 31 ? 0x80000001u : whole_warp); }
constexpr int two_collectives_line = __LINE__ + 3;
__global__ void two_collectives(int* out) {
  if (threadIdx.x % 2) {
    out[threadIdx.x] = __any_sync(whole_warp, 1);
  } else {
    out[threadIdx.x] = __all_sync(whole_warp, 1);
  }
}
constexpr int shuffle_from_outside_line = __LINE__ + 2;
__global__ void shuffle_from_outside(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xFFFFu, 1, 20);
}
constexpr int misaligned_line = __LINE__ + 1;
__global__ void misaligned(const char* in, uint4* out) { out[0] = load_128(in + 4); }
constexpr int mma_of_float8_line = __LINE__ + 4;
__global__ void mma_of_float8(float* out) {
  std::uint32_t a[4] = {}, b[2] = {};
  float c[4] = {};
  mma_m16n8k32<float8_e4m3fn>(c, a, b, c);
  out[threadIdx.x] = c[0];
}

// That the launch failed, and that its error says what and, unless it is 0, on which line.
void failed_with(int error, const char* what, int line) {
  const std::string text = cuda::launch_error(error), place = "test_simt_faults.cpp:" + std::to_string(line) + ")";
  CHECK(error != 0 && text.find(what) != std::string::npos, text, "lacks", what);
  CHECK(line == 0 || text.find(place) != std::string::npos, text, "lacks", place);
}

void expect_healthy() {
  Array<unsigned> counts(8, 0u), bits(4, 0u);
  Array<int> extremes(2, 0);
  Array<unsigned long long> wide(2, 0ull);
  RUN(integer_atomics, 4, 64, 0, nullptr, counts.data(), extremes.data(), bits.data(), wide.data());
  for (unsigned i = 0; i < 8; ++i) CHECK(counts[i] == 32, i);
}

void test_faults() {
  Array<int> out(64);
  Array<uint4> wide(4);
  const char* bytes = reinterpret_cast<const char*>(wide.data());
  failed_with(run(half_waits, 1, 64, 0, nullptr, out.data()), "__syncthreads of half_waits", half_waits_line);
  expect_healthy();
  failed_with(run(two_barriers, dim3(2, 3), 64, 0, nullptr), "divergent barrier", two_barriers_line);
  failed_with(run(two_barriers, 1, 64, 0, nullptr), "__syncthreads of two_barriers", two_barriers_line + 2);
  expect_healthy();
  for (int line : {barrier_or_shuffle_line, barrier_or_shuffle_line + 1}) {
    failed_with(run(barrier_or_shuffle, 1, 32, 0, nullptr, out.data()), "deadlock in block (0, 0, 0)", line);
  }
  failed_with(run(lane_returned, 1, 64, 0, nullptr, out.data()), "__ballot_sync of lane_returned", lane_returned_line);
  failed_with(run(lane_returned, 1, 16, 0, nullptr, out.data()), "never were: 0xffff0000", lane_returned_line);
  failed_with(run(mask_without_caller, 1, 32, 0, nullptr), "lacks the calling lane", mask_without_caller_line);
  failed_with(run(two_masks, 1, 32, 0, nullptr), "divergent warp", two_masks_line);
  for (int line : {two_collectives_line, two_collectives_line + 2}) {
    failed_with(run(two_collectives, 1, 32, 0, nullptr, out.data()), "divergent warp", line);
  }
  failed_with(run(shuffle_from_outside, 1, 32, 0, nullptr, out.data()), "reads from a lane", shuffle_from_outside_line);
  failed_with(run(misaligned, 1, 1, 0, nullptr, bytes, wide.data()), "no multiple of 16 bytes", misaligned_line);
  expect_healthy();
}

void test_missing_float8() {
  Array<float> out(32);
  simt::set_architecture(mma::Unit::ampere);
  failed_with(run(mma_of_float8, 1, 32, 0, nullptr, out.data()), "no such instruction on ampere", mma_of_float8_line);
  simt::set_architecture(mma::Unit::hopper);
  RUN(mma_of_float8, 1, 32, 0, nullptr, out.data());
}

void test_launch_limits() {
  Array<unsigned> out(2048);
  failed_with(run(first_bytes, 1, 1025, 4, nullptr, out.data()), "1 to 1024 threads, got 1025", 0);
  failed_with(run(first_bytes, 0, 32, 4, nullptr, out.data()), "a grid has 1 to", 0);
  failed_with(run(first_bytes, 1, dim3(1, 1, 65), 4, nullptr, out.data()), "64 threads in z", 0);
  failed_with(run(first_bytes, 1, 32, 300 << 10, nullptr, out.data()), "232448 bytes of dynamic shared", 0);
}

void test_dynamic_shared_starts_as_nan() {
  Array<unsigned> out(96);
  RUN(first_bytes, 3, 32, 128, nullptr, out.data());
  for (unsigned i = 0; i < 96; ++i) CHECK(out[i] == ~0u, i);
}

template <bool waits, bool barriers>
bool pipeline_is_right() {
  Array<float> in(512, 1.0f), out(128);
  RUN(pipeline<waits, barriers>, 1, 32, 3 * 512, nullptr, in.data(), out.data(), 4);
  bool right = true;
  for (unsigned i = 0; i < 128; ++i) {
    CHECK(out[i] == 4.0f || std::isnan(out[i]), out[i]);
    right = right && out[i] == 4.0f;
  }
  return right;
}

void test_missing_synchronisation_shows() {
  CHECK((pipeline_is_right<true, true>()));
  CHECK((!pipeline_is_right<false, true>()));  // no wait: NaN
  CHECK((!pipeline_is_right<true, false>()));  // a neighbour's copy, which this thread has not waited for
}

simt::Traffic traffic_of(unsigned copy_stride) {
  Array<uint4> in(256 * 8), out(256);
  RUN(strided_copy, 2, 128, 0, nullptr, in.data(), out.data(), copy_stride);
  return simt::traffic();
}

simt::Traffic traffic_of_transpose(unsigned tile_stride) {
  Array<float> in(64 * 64), out(64 * 64);
  RUN(transpose, dim3(2, 2), dim3(32, 8), 32 * tile_stride * 4, nullptr, in.data(), out.data(), 64, tile_stride);
  return simt::traffic();
}

void test_traffic() {
  simt::count(true);
  const simt::Traffic dense = traffic_of(1), sparse = traffic_of(8);
  CHECK(dense.requests == 16 && dense.sectors == 256 && dense.ideal_sectors == 256, dense.sectors);
  CHECK(sparse.requests == 16 && sparse.sectors == 128 + 256 && sparse.ideal_sectors == 256, sparse.sectors);

  const simt::Traffic padded = traffic_of_transpose(33), unpadded = traffic_of_transpose(32);
  for (const simt::Traffic& t : {padded, unpadded}) {  // 4 blocks of 32 rows, read and written in both memories
    CHECK(t.requests == 256 && t.sectors == 1024 && t.ideal_sectors == 1024, t.requests, t.sectors);
    CHECK(t.shared_requests == 256 && t.ideal_waves == 256, t.shared_requests, t.ideal_waves);
  }
  CHECK(padded.waves == 256, padded.waves);
  CHECK(unpadded.waves == 128 + 128 * 32, unpadded.waves);  // a column in one bank

  Array<std::uint16_t> elements(256);
  RUN(matrices<4, false>, 1, 32, 512, nullptr, elements.data());
  CHECK(simt::traffic().shared_requests == 1 && simt::traffic().waves == 4, simt::traffic().waves);

  Array<float> in(7 * 128), out(128);
  RUN(pipeline<true, true>, 1, 32, 3 * 512, nullptr, in.data(), out.data(), 7);
  CHECK(simt::traffic().requests == 7 && simt::traffic().sectors == 7 * 16, simt::traffic().sectors);
  CHECK(simt::traffic().shared_requests == 7 && simt::traffic().waves == 7 * 4, simt::traffic().waves);
  simt::count(false);
}

__global__ void writes_past_its_tile() {
  DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + 1] = 0;
}

}  // namespace
}  // namespace gradkern::test

int main(int arguments, char**) {
  using namespace gradkern;
  if (arguments > 1)
    return test::run(test::writes_past_its_tile, 1, 32, 128, nullptr);  // AddressSanitizer ends it here
  test::test_faults();
  test::test_missing_float8();
  test::test_launch_limits();
  test::test_dynamic_shared_starts_as_nan();
  test::test_missing_synchronisation_shows();
  test::test_traffic();
  for (const char* order : {"reverse", "5"}) {
    simt::set_order(simt::order_of(order));
    test::test_faults();
    test::test_dynamic_shared_starts_as_nan();
    test::test_traffic();
  }
  return test::report();
}
