// Products in float32 whose operands change along k: zeros, subnormals and others, block after block, against the
// reference loop, bit by bit.
#include "base/thread_pool.hpp"
#include "dense_case.hpp"

namespace gradkern {
namespace {

using test::Case;
using test::FormatId;
using test::Tensor;

// What a block of k holds: values of about 2^exponent, or zeros of either sign.
constexpr int zeros = 1000;
constexpr int exponents[] = {0, -60, -104, -112, -118, -122, -126, -131, -138, -146, -149, zeros};

double entry(std::uint64_t seed, std::uint64_t i, int exponent) {
  const double value = test::random_double(seed, i, -3, 1);
  return exponent == zeros ? std::copysign(0.0, value) : std::ldexp(value, exponent);
}

template <std::size_t N>
int draw(const int (&list)[N], std::uint64_t seed, std::uint64_t i) {
  return list[formats::random_bits(seed, i) % N];
}

Case stretches(std::int64_t m, std::int64_t n, std::int64_t k, FormatId storage, std::uint64_t seed) {
  constexpr int of_b[] = {0, 0, -4, -10, -62, -120, -140};
  constexpr std::int64_t block = 160;  // twice in what is decided at once
  Case c{m, n, k, storage, storage, FormatId::float32, (seed & 1) != 0, (seed & 2) != 0, {}, {}, {}, {}};
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  std::vector<double> a(at(m * k)), b(at(k * n)), bias, start;
  for (std::int64_t l = 0; l < k; ++l) {
    const auto part = static_cast<std::uint64_t>(l / block);
    const int low = draw(exponents, seed, part), lower = draw(of_b, seed + 1, part);
    for (std::int64_t i = 0; i < m; ++i) {
      const std::int64_t to = c.transpose_a ? l * m + i : i * k + l;
      a[at(to)] = entry(seed + 2, static_cast<std::uint64_t>(to), low);
    }
    for (std::int64_t j = 0; j < n; ++j) {
      const std::int64_t to = c.transpose_b ? j * k + l : l * n + j;
      b[at(to)] = entry(seed + 3, static_cast<std::uint64_t>(to), lower);
    }
  }
  if (seed % 5 == 0) test::sprinkle(a, storage, seed + 4, 400);
  if (seed % 7 == 0) test::sprinkle(b, storage, seed + 5, 400);
  const auto some = [&](std::int64_t size, std::uint64_t stream) {
    std::vector<double> values(at(size));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = entry(seed + stream, i, draw(exponents, seed + stream + 1, seed % 3 ? i : 0));
    return values;
  };
  if (seed & 4) bias = some(seed & 8 ? m * n : n, 6);
  if (seed & 16) start = some(m * n, 8);
  c.a = test::tensor(storage, a);
  c.b = test::tensor(storage, b);
  c.bias = test::tensor(storage, bias);
  c.start = test::tensor(FormatId::float32, start);
  return c;
}

// One row of outputs: a and b drawn from few values, each output from a start of its own.
Case row(std::int64_t k, const std::vector<double>& of_a, const std::vector<double>& of_b,
         const std::vector<double>& starts, std::uint64_t seed) {
  constexpr std::int64_t n = 40;
  const auto drawn = [&](const std::vector<double>& list, std::int64_t size, std::uint64_t stream) {
    std::vector<double> values(static_cast<std::size_t>(size));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = list[formats::random_bits(stream, i) % list.size()];
    return values;
  };
  const FormatId f = FormatId::float32;
  return {1,
          n,
          k,
          f,
          f,
          f,
          false,
          false,
          test::tensor(f, drawn(of_a, k, seed)),
          test::tensor(f, drawn(of_b, k * n, seed + 1)),
          test::tensor(f, {}),
          test::tensor(f, drawn(starts, n, seed + 2))};
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  const auto executors = test::usable_executors();
  for (std::uint64_t seed = 0; seed < 256; ++seed) {
    const FormatId storage = seed % 8 == 7 ? FormatId::bfloat16 : FormatId::float32;
    const auto s = static_cast<std::int64_t>(seed);
    const Case c = stretches(s % 19 + 1, s * 7 % 83 + 1, seed % 3 ? 1 + s * 37 % 1500 : s % 60 + 1, storage, seed * 33);
    const Case turned = stretches(s % 19 + 1, s * 7 % 83 + 1, 700, storage, seed);
    for (const Case* one : {&c, &turned}) {
      const auto truth = test::expected(*one);
      base::set_num_threads(static_cast<int>(seed % 3) + 1);
      for (const auto& e : executors) compare(e, *one, truth);
    }
  }
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    // A start of -0 stays so where every term is -0; and a sum just below a tie, in more bits than float64 has.
    const Case signs = row(static_cast<std::int64_t>(seed % 3) + 1, {0.0, -0.0}, {1, -1}, {0.0, -0.0, -3}, seed);
    const Case ties = row(1, {0x1.000002p-120, -0x1.000002p-120}, {0x1.fffffcp-1, 0x1.000002p0},
                          {0x1.000002p-96, 0x1p-96, -0x1.000002p-96}, seed);
    for (const Case* one : {&signs, &ties}) {
      const auto truth = test::expected(*one);
      for (const auto& e : executors) compare(e, *one, truth);
    }
  }
  return test::report();
}
