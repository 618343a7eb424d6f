// The CUDA kernels of products by fma, run on the host: bit for bit what the CPU computes, in any order of threads.
#include "check.hpp"
#include "cuda/kernels.hpp"
#include "device_table.hpp"
#include "product_cases.hpp"
#include "simt/executor.hpp"

namespace gradkern {
namespace {

using test::FormatId;
using test::Placement;
using test::ProductCase;

executor::Executor device() {
  static executor::DeviceTable table = [] {
    executor::DeviceTable t = test::memory_table();
    t.products = cuda::products;
    return t;
  }();
  return executor::device_executor(table);
}

void compare(const executor::Executor& cpu, const ProductCase& c) {
  const test::Product product(c);
  const auto truth = product.computed(cpu, false);
  const auto got = product.computed<test::DeviceBytes>(device(), true);
  CHECK(got == truth, test::text_of(c));
}

// Contiguous; in lines of whole quads, unaligned, with gaps; each transposed or not.
Placement placement(std::uint64_t seed, std::int64_t rows, std::int64_t columns) {
  const auto draw = [&](std::uint64_t index, std::uint64_t below) {
    return static_cast<std::int64_t>(formats::random_bits(seed, index) % below);
  };
  const bool transposed = draw(0, 2) != 0;
  const std::int64_t line = transposed ? rows : columns;
  switch (draw(1, 5)) {
    case 0:
      return {transposed, draw(2, 3), draw(3, 9), draw(4, 9)};
    case 1:
      return {transposed, 0, draw(3, 9), draw(4, 9)};
    case 2:
      return {transposed, 0, (line + 3) / 4 * 4 - line, 0};
    default:
      return {transposed, 0, 0, 0};
  }
}

ProductCase random_case(std::int64_t m, std::int64_t n, std::int64_t k, FormatId a, FormatId b, FormatId operands,
                        FormatId accumulate, std::uint64_t seed) {
  return {m,
          n,
          k,
          a,
          b,
          operands,
          accumulate,
          placement(2 * seed, m, k),
          placement(2 * seed + 1, k, n),
          seed % 3 == 0   ? 0
          : seed % 3 == 1 ? 1
                          : m,
          seed % 4 == 1,
          seed,
          seed % 2 ? 0u : 40u};
}

template <class Body>
void for_arithmetics(Body body) {
  constexpr FormatId accumulators[] = {FormatId::float64, FormatId::float32, FormatId::float16, FormatId::bfloat16};
  for (const FormatId accumulate : accumulators) {
    for (const FormatId storage : test::storage_formats) {
      body(storage, storage, storage, accumulate);
      const bool wider = storage == FormatId::float64 || storage == FormatId::float32;
      if (wider) body(storage, storage, FormatId::tfloat32, accumulate);
    }
    body(FormatId::tfloat32, FormatId::tfloat32, FormatId::tfloat32, accumulate);
    body(FormatId::float8_e4m3fn, FormatId::float8_e5m2, FormatId::float8_e4m3fn, accumulate);
    body(FormatId::float8_e5m2, FormatId::float16, FormatId::float16, accumulate);
  }
}

void ragged_sizes(const executor::Executor& cpu) {
  constexpr std::int64_t depths[] = {0, 1, 2, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 130};
  constexpr std::int64_t sides[] = {1, 2, 4, 5, 15, 16, 17, 31, 32, 33, 64, 65, 70};
  for_arithmetics([&](FormatId a, FormatId b, FormatId operands, FormatId accumulate) {
    std::uint64_t seed = 1;
    for (const std::int64_t k : depths) {
      for (int draw = 0; draw < 3; ++draw, ++seed) {
        const auto side = [&](std::uint64_t i) { return sides[formats::random_bits(seed, i) % std::size(sides)]; };
        compare(cpu, random_case(side(5), side(6), k, a, b, operands, accumulate, seed));
      }
    }
  });
}

// Products that underflow leave sums of zero, whose signs are those of their last products.
void signed_zeros(const executor::Executor& cpu) {
  using enum FormatId;
  for (const auto& [format, exponent] : {std::pair{float64, -550}, {float32, -90}, {bfloat16, -90}, {float16, -16}}) {
    for (const std::int64_t k : {1, 2, 3, 5, 9, 18, 33}) {
      ProductCase c = random_case(35, 37, k, format, format, format, format, 12 * static_cast<std::uint64_t>(k));
      c.special_period = 0;
      c.exponent = exponent;
      compare(cpu, c);
    }
  }
}

// Enough rows and columns for the large tiles.
void large_tiles(const executor::Executor& cpu) {
  for_arithmetics([&](FormatId a, FormatId b, FormatId operands, FormatId accumulate) {
    for (std::uint64_t seed = 1; seed <= 2; ++seed)
      compare(cpu, random_case(690, 705 + static_cast<std::int64_t>(seed), 18, a, b, operands, accumulate, seed));
  });
  constexpr FormatId within[] = {FormatId::float32, FormatId::float16, FormatId::float8_e5m2};
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    const FormatId f = within[seed % std::size(within)];
    const auto draw = static_cast<std::int64_t>(seed % 5);
    compare(cpu, random_case(1500 + draw, 1412 + draw, 7 + 3 * draw, f, f, f, FormatId::float32, seed));
  }
}

// Results in device memory that is not aligned to 16 bytes, and rows of several lengths.
void unaligned_results(const executor::Executor& cpu) {
  for (const FormatId f : {FormatId::float64, FormatId::float32}) {
    for (std::int64_t n = 28; n <= 36; ++n) {
      for (std::int64_t offset = 0; offset < 4; ++offset) {
        ProductCase c = random_case(20, n, 5, f, f, f, f, static_cast<std::uint64_t>(4 * n + 1));
        const test::Product product(c);
        const std::int64_t bytes = f == FormatId::float64 ? 8 : 4;
        void* memory = nullptr;
        cuda::allocate(&memory, (20 * n + 4) * bytes, nullptr);
        const auto truth = product.computed(cpu, false);
        const auto got = product.computed<test::DeviceBytes>(device(), true, offset, memory);
        cuda::release(memory, nullptr);
        CHECK(got == truth, test::text_of(c), "offset", offset);
      }
    }
  }
}

// Several at once, of which some go through one launch: alike or not, empty ones between them, more than a launch takes.
void lists(const executor::Executor& cpu) {
  using enum FormatId;
  struct Shape {
    std::int64_t m, n, k;
    FormatId format, accumulate;
    int bias = 0;  // none, one row, a row for each
    bool continued = false;
    int apart = 0;  // exponents of a and b, so far from 0 either way
  };
  const Shape shapes[] = {
      {37, 45, 70, float16, float32},
      {1, 45, 37, float16, float32, 1},
      {64, 33, 45, float16, float32},
      {0, 45, 9, float16, float32},
      {5, 0, 8, float16, float32},
      {20, 20, 0, float16, float32, 2},
      {70, 9, 33, float32, float32},
      {5, 130, 8, float32, float32, 0, true},
      {5, 0, 8, float32, float32},
      {33, 34, 35, float32, float32, 2, true},
      {17, 3, 5, bfloat16, float32},
      {9, 9, 9, float64, float64},
      {9, 9, 9, float32, float32},
      {9, 9, 9, float64, float32},
      {9, 9, 9, float64, float32},
      {800, 720, 6, float32, float32},
      {810, 700, 7, bfloat16, float32, 1},
      {30, 20, 7, bfloat16, float32},
      {1500, 1400, 3, float16, float32},
      {1500, 1400, 4, float16, float32},
      {12, 31, 40, float64, float64},
      {40, 40, 4, float16, float16},
      {40, 40, 4, bfloat16, bfloat16},
      {3, 40, 4, float8_e5m2, float16},
      {3, 40, 4, bfloat16, float16, 0, false, 30},
      {3, 40, 4, bfloat16, float16, 1, false, 30},
  };
  struct Bits {
    test::Tensor a, b, bias, start;
    std::vector<std::uint8_t> truth, got;
  };
  std::vector<Bits> bits;
  std::vector<executor::ProductArgs> list;
  const executor::ProductArgs before{};
  bits.reserve(std::size(shapes));
  for (const Shape& s : shapes) {
    const auto seed = 100 + 10 * bits.size();
    const FormatId wide = executor::wide_format(s.accumulate);
    const auto values = [&](FormatId format, std::int64_t size, std::uint64_t stream, int exponent) {
      return test::tensor(format, test::random_values(seed + stream, size, exponent - 6, exponent + 3));
    };
    Bits& t = bits.emplace_back();
    t.a = values(s.format, s.m * s.k, 0, -s.apart);
    t.b = values(s.format, s.k * s.n, 1, s.apart);
    t.bias = values(s.format, s.bias == 2 ? s.m * s.n : s.n, 2, 0);
    t.truth = t.got = s.continued ? values(wide, s.m * s.n, 3, 0).bytes
                                  : std::vector<std::uint8_t>(
                                        static_cast<std::size_t>(s.m * s.n * formats::container_bytes(wide)), 0xAB);
    executor::ProductArgs p{};
    p.m = s.m, p.n = s.n, p.k = s.k;
    p.a = {s.format, t.a.bytes.data(), s.k, 1};
    p.b = {s.format, t.b.bytes.data(), s.n, 1};
    p.operands = p.bias_format = s.format;
    p.accumulate = s.accumulate;
    p.bias = s.bias ? t.bias.bytes.data() : nullptr;
    p.bias_row = s.bias == 2 ? s.n : 0;
    p.continued = s.continued ? &before : nullptr;
    if (s.k == 0) p.a.data = p.b.data = t.bias.bytes.data();
    p.wide = t.truth.data();
    cpu.products(cpu, &p, 1);
    p.wide = t.got.data();
    list.push_back(p);
  }
  CHECK(cuda::products(list.data(), static_cast<int>(list.size()), nullptr) == 0);
  for (std::size_t i = 0; i < list.size(); ++i) CHECK(bits[i].got == bits[i].truth, "of a list", i);
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  const executor::Executor cpu = test::usable_executors().back();
  for (const simt::Order order :
       {simt::Order{simt::Order::forward, 0}, {simt::Order::reverse, 0}, {simt::Order::shuffled, 3}}) {
    simt::set_order(order);
    ragged_sizes(cpu);
    unaligned_results(cpu);
    signed_zeros(cpu);
  }
  lists(cpu);
  large_tiles(cpu);
  return test::report();
}
