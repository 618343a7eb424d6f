// What kernels are written in, run: indices, warp collectives, shared memory, cp.async, ldmatrix, atomics, bits. On the
// host under several thread orders and with blocks on several threads; on a GPU where nvcc compiles this file (-x cu).
#include <bit>
#include <cmath>

#include "check.hpp"
#include "kernel_array.hpp"
#include "simt_kernels.hpp"
#if !defined(__CUDACC__)
#include "base/thread_pool.hpp"
#endif

namespace gradkern::test {
namespace {

void test_indices() {
  const dim3 grid(3, 2, 2), block(5, 3, 4);
  Array<uint4> out(12 * 60);
  RUN(indices, grid, block, 0, stream_t{}, out.data());
  for (unsigned i = 0; i < out.size(); ++i) {
    const unsigned t = i % 60;
    CHECK(out[i].x == i / 60 && out[i].y == t % 5 && out[i].z == t / 5 % 3 && out[i].w == t / 15, i);
  }
}

template <class T>
void test_shuffles() {
  constexpr unsigned n = 64;
  Array<T> in(n), out(6 * n);
  for (unsigned i = 0; i < n; ++i) in[i] = static_cast<T>(i * i) + static_cast<T>(sizeof(T) == 8 ? 1ll << 40 : 0);
  RUN(shuffles<T>, 1, n, 0, stream_t{}, in.data(), out.data());
  for (unsigned i = 0; i < n; ++i) {
    const unsigned warp = i / 32 * 32, lane = i % 32;
    const unsigned sources[6] = {warp + (i * 7 + 3) % 32,        i / 8 * 8 + 5,     lane < 3 ? i : i - 3,
                                 lane % 16 + 3 < 16 ? i + 3 : i, warp + (lane ^ 9), lane % 8 < 4 ? i : i - 4};
    for (unsigned s = 0; s < 6; ++s) CHECK(out[s * n + i] == in[sources[s]], sizeof(T), s, i);
  }
}

void test_votes() {
  constexpr unsigned n = 128;
  Array<unsigned> in(n), out(12 * n);
  for (unsigned i = 0; i < n; ++i) in[i] = noise(i) % (i < 64 ? 100 : 300);
  in[40] = 7;
  RUN(votes, 1, n, 0, stream_t{}, in.data(), out.data());
  unsigned odd_in_block = 0;
  bool all_small = true;
  for (unsigned i = 0; i < n; ++i) odd_in_block += in[i] & 1, all_small = all_small && in[i] < 200;
  for (unsigned i = 0; i < n; ++i) {
    unsigned ballot = 0, match = 0, sum = 0, least = ~0u, most = 0, conjunction = ~0u, disjunction = 0, parity = 0;
    bool any = false, all = true;
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned x = in[i / 32 * 32 + lane];
      ballot |= (x & 1) << lane;
      match |= static_cast<unsigned>(x % 4 == in[i] % 4) << lane;
      any = any || x == 7;
      all = all && x < 200;
      if (lane % 2 == i % 2) sum += lane % 2 ? 2 * x : x;
      least = std::min(least, x), most = std::max(most, x);
      conjunction &= x, disjunction |= x, parity ^= x;
    }
    const unsigned expected[12] = {ballot, match,       0,           0,      sum,          least,
                                   most,   conjunction, disjunction, parity, odd_in_block, 1u + 2u * all_small};
    const unsigned* mine = out.data() + 12 * i;
    CHECK(mine[0] == expected[0] && mine[3] == expected[1], i);
    CHECK(mine[1] == any && mine[2] == all, i);
    for (unsigned k = 4; k < 12; ++k) CHECK(mine[k] == expected[k], i, k, mine[k], expected[k]);
  }
}

void test_row_sums() {
  constexpr int rows = 5, columns = 1000;
  Array<float> x(rows * columns), sums(rows);
  for (unsigned i = 0; i < x.size(); ++i) x[i] = static_cast<float>(noise(i) % 64);
  RUN(row_sums, rows, 256, 0, stream_t{}, x.data(), sums.data(), columns);
  for (unsigned r = 0; r < rows; ++r) {
    float sum = 0;  // integers: exact in any order
    for (unsigned i = 0; i < columns; ++i) sum += x[r * columns + i];
    CHECK(sums[r] == sum, r);
  }
}

void test_transpose() {
  constexpr unsigned n = 64;
  Array<float> in(n * n), out(n * n);
  for (unsigned i = 0; i < n * n; ++i) in[i] = static_cast<float>(i);
  RUN(transpose, dim3(n / 32, n / 32), dim3(32, 8), 32 * 33 * 4, stream_t{}, in.data(), out.data(), n, 33);
  for (unsigned i = 0; i < n * n; ++i) CHECK(out[i] == in[i % n * n + i / n], i);
}

void test_pipeline() {
  constexpr int tiles = 7;
  Array<float> in(tiles * 128), out(128);
  for (unsigned i = 0; i < in.size(); ++i) in[i] = static_cast<float>(noise(i) % 1000);
  RUN(pipeline<true, true>, 1, 32, 3 * 512, stream_t{}, in.data(), out.data(), tiles);
  for (unsigned i = 0; i < 128; ++i) {
    float sum = 0;
    for (unsigned t = 0; t < tiles; ++t) sum += in[t * 128 + i];
    CHECK(out[i] == sum, i);
  }
}

void test_zero_fill() {
  Array<std::uint16_t> in(16), out(16);
  for (unsigned i = 0; i < 16; ++i) in[i] = static_cast<std::uint16_t>(100 + i);
  RUN(zero_fill, 1, 1, 32, stream_t{}, in.data(), out.data());
  for (unsigned i = 0; i < 14; ++i) CHECK(out[i] == (i == 7 || i == 11 || i == 13 ? 0 : 100 + i), i, out[i]);
}

// The PTX ISA: of matrix m, lane l receives elements (l / 4, 2 (l % 4)) and the next in its row; .trans transposes.
template <int count, bool transposed>
void test_matrices() {
  Array<std::uint16_t> out(count * 64);
  RUN(matrices<count, transposed>, 1, 32, 512, stream_t{}, out.data());
  for (unsigned i = 0; i < count * 64; ++i) {
    const unsigned m = i / 64, lane = i / 2 % 32, row = lane / 4, column = lane % 4 * 2 + i % 2;
    const unsigned at = transposed ? column * 8 + row : row * 8 + column;
    CHECK(out[i] == m * 64 + at, count, transposed, i, out[i]);
  }
}

void test_atomics() {
  constexpr unsigned blocks = 6, threads = 64, n = blocks * threads;
  Array<unsigned> counts(8, 0u), bits(4, 0u);
  Array<int> extremes(2, 0);
  Array<unsigned long long> wide(2, 0ull);
  bits[1] = ~0u;
  RUN(integer_atomics, blocks, threads, 0, stream_t{}, counts.data(), extremes.data(), bits.data(), wide.data());
  for (unsigned i = 0; i < 8; ++i) CHECK(counts[i] == n / 8, i, counts[i]);
  CHECK(extremes[0] == -static_cast<int>(n - 1) && extremes[1] == static_cast<int>(n - 1));
  CHECK(bits[0] == ~0u && bits[1] == 0xFFFF0000u && bits[2] == 2 * n && bits[3] == 77, bits[0], bits[1], bits[2]);
  CHECK(wide[0] == static_cast<unsigned long long>(n) << 32 && wide[1] == static_cast<unsigned long long>(n - 1) << 33);
}

void test_bit_functions() {
  const unsigned values[] = {0, 1, 2, 99, 0x80000000u, 0xFFFFFFFFu, 0x00F0F000u, 123456789};
  Array<unsigned> in(8), out(64);
  for (unsigned i = 0; i < 8; ++i) in[i] = values[i];
  RUN(bit_functions, 1, 8, 0, stream_t{}, in.data(), out.data());
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned x = values[i];
    const std::uint64_t wide = std::uint64_t(x) << 20;
    unsigned reversed = 0;
    for (unsigned b = 0; b < 32; ++b) reversed |= (x >> b & 1) << (31 - b);
    const float multiple = std::fma(static_cast<float>(x), 3.0f, 1.0f);
    const unsigned expected[8] = {
        static_cast<unsigned>(std::popcount(x)),
        static_cast<unsigned>(std::countl_zero(x)),
        x ? static_cast<unsigned>(std::countr_zero(x)) + 1 : 0,
        static_cast<unsigned>(std::countl_zero(wide)),
        reversed,
        std::bit_cast<unsigned>(multiple),
        (x ? static_cast<unsigned>(std::countr_zero(wide)) + 1 : 0) + static_cast<unsigned>(std::popcount(wide)),
        std::min(x, 100u) + std::max(x, 3u)};
    for (unsigned k = 0; k < 8; ++k) CHECK(out[8 * i + k] == expected[k], x, k, out[8 * i + k]);
  }
}

void test_all() {
  test_indices();
  test_shuffles<int>();
  test_shuffles<unsigned>();
  test_shuffles<long long>();
  test_shuffles<unsigned long long>();
  test_shuffles<float>();
  test_shuffles<double>();
  test_votes();
  test_row_sums();
  test_transpose();
  test_pipeline();
  test_zero_fill();
  test_matrices<1, false>();
  test_matrices<2, false>();
  test_matrices<4, false>();
  test_matrices<1, true>();
  test_matrices<2, true>();
  test_matrices<4, true>();
  test_atomics();
  test_bit_functions();
}

}  // namespace
}  // namespace gradkern::test

int main() {
#if defined(__CUDACC__)
  gradkern::test::test_all();
#else
  for (const char* order : {"forward", "reverse", "1", "20260"}) {
    gradkern::simt::set_order(gradkern::simt::order_of(order));
    for (int threads : {1, 3}) {
      gradkern::base::set_num_threads(threads);
      gradkern::test::test_all();
    }
  }
#endif
  return gradkern::test::report();
}
