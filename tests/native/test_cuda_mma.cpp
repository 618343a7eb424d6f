// The CUDA kernels of products on matrix units, run on the host, where mma.sync computes as the model of the imitated
// unit does: bit for bit what the CPU computes for that unit, in any order of threads.
#include "check.hpp"
#include "cuda/kernels.hpp"
#include "device_table.hpp"
#include "mma/units.hpp"
#include "product_cases.hpp"
#include "simt/executor.hpp"
#include "simt/tensor_core.hpp"
#include "simt/traffic.hpp"

namespace gradkern {
namespace {

using mma::Operands;
using mma::Unit;
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
  simt::set_architecture(static_cast<Unit>(c.unit));
  const auto truth = product.computed(cpu, false);
  const auto got = product.computed<test::DeviceBytes>(device(), true);
  CHECK(got == truth, test::text_of(c), mma::unit_names[c.unit], "k", c.instruction_k, "layout", c.a_at.gap,
        c.a_at.extra, c.a_at.offset, c.b_at.gap, c.b_at.extra, c.b_at.offset, "continued", c.continued, "bias",
        c.bias_rows);
}

std::int64_t draw(std::uint64_t seed, std::uint64_t index, std::uint64_t below) {
  return static_cast<std::int64_t>(formats::random_bits(seed, index) % below);
}

// Mostly lines that can be copied 16 bytes at a time, whatever the size of the matrix.
Placement placement(std::uint64_t seed, std::int64_t rows, std::int64_t columns) {
  const bool transposed = draw(seed, 0, 2) != 0;
  if (draw(seed, 1, 4) == 0) return {transposed, draw(seed, 2, 2), draw(seed, 3, 9), draw(seed, 4, 9)};
  const std::int64_t line = transposed ? rows : columns;
  return {transposed, 0, (line + 15) / 16 * 16 - line, 0};
}

struct Formats {
  FormatId a, b, operands;
};

std::vector<Formats> formats_of(Operands operands) {
  using enum FormatId;
  switch (operands) {
    case Operands::float16:
      return {{float16, float16, float16}};
    case Operands::bfloat16:
      return {{bfloat16, bfloat16, bfloat16}};
    case Operands::tfloat32:
      return {{float32, float32, tfloat32}, {tfloat32, tfloat32, tfloat32}, {float32, float16, tfloat32}};
    default:
      return {{float8_e4m3fn, float8_e4m3fn, float8_e4m3fn},
              {float8_e5m2, float8_e5m2, float8_e5m2},
              {float8_e4m3fn, float8_e5m2, float8_e4m3fn},
              {float8_e5m2, float8_e4m3fn, float8_e5m2}};
  }
}

bool has_kernel(const mma::Row& row) {
  return !mma::rounds_each(row.form) && row.unit != Unit::hopper_wgmma && row.unit != Unit::blackwell_tcgen05 &&
         !(row.operands == Operands::float16 && row.k == 4);
}

template <class Body>
void for_instructions(Body body) {
  for (const mma::Row& row : mma::rows) {
    for (const FormatId accumulate : {FormatId::float32, FormatId::float16}) {
      if (!has_kernel(row) || (accumulate == FormatId::float16 && row.floor_float16 == mma::no_half)) continue;
      for (const Formats& f : formats_of(row.operands)) body(row, f, accumulate);
    }
  }
}

ProductCase make(const mma::Row& row, const Formats& f, FormatId accumulate, std::int64_t m, std::int64_t n,
                 std::int64_t k, std::uint64_t seed) {
  ProductCase c{};
  c.m = m;
  c.n = n;
  c.k = k;
  c.a_format = f.a;
  c.b_format = f.b;
  c.operands = f.operands;
  c.accumulate = accumulate;
  c.a_at = placement(2 * seed, m, k);
  c.b_at = placement(2 * seed + 1, k, n);
  c.bias_rows = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 1 : m;
  c.continued = seed % 4 == 1;
  c.seed = seed;
  c.special_period = seed % 2 ? 0 : 60;
  c.unit = static_cast<int>(row.unit);
  c.instruction_k = row.k;
  return c;
}

// share: which third of the cases goes to this order of threads.
void ragged_sizes(const executor::Executor& cpu, std::int64_t share) {
  constexpr std::int64_t depths[] = {0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 130};
  constexpr std::int64_t sides[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 65};
  std::uint64_t seed = 0;
  for_instructions([&](const mma::Row& row, const Formats& f, FormatId accumulate) {
    for (const std::int64_t k : depths) {
      if (draw(++seed, 7, 3) != share) continue;
      compare(cpu, make(row, f, accumulate, sides[draw(seed, 5, std::size(sides))],
                        sides[draw(seed, 6, std::size(sides))], k, seed));
    }
  });
}

// Enough rows and columns for large tiles, in every layout that they copy.
void large_tiles(const executor::Executor& cpu) {
  std::uint64_t seed = 0;
  const auto compare_layouts = [&](Unit unit, Operands operands, const Formats& f, FormatId accumulate) {
    const mma::Row& row = *mma::find_row(unit, f.operands, f.operands, 0);
    CHECK(row.operands == operands);
    for (const auto& [a, b] : {std::pair{false, true}, {false, false}, {true, false}}) {
      ++seed;
      // Copied where they lie 16 bytes at a time; else, as every fourth, packed.
      const std::int64_t k = seed % 4 ? 16 * (1 + static_cast<std::int64_t>(seed) % 5) : 37;
      ProductCase c = make(row, f, accumulate, 1176, 1240, k, seed);
      c.a_at = {a, 0, (16 - (a ? c.m : c.k) % 16) % 16, 0};
      c.b_at = {b, 0, (16 - (b ? c.k : c.n) % 16) % 16, 0};
      compare(cpu, c);
    }
  };
  using enum FormatId;
  compare_layouts(Unit::hopper, Operands::float16, {float16, float16, float16}, float32);
  compare_layouts(Unit::ampere, Operands::float16, {float16, float16, float16}, float16);
  compare_layouts(Unit::ampere, Operands::bfloat16, {bfloat16, bfloat16, bfloat16}, float32);
  compare_layouts(Unit::hopper, Operands::tfloat32, {float32, float32, tfloat32}, float32);
  compare_layouts(Unit::ampere, Operands::tfloat32, {tfloat32, tfloat32, tfloat32}, float32);
  compare_layouts(Unit::ada, Operands::float8, {float8_e4m3fn, float8_e4m3fn, float8_e4m3fn}, float32);
  compare_layouts(Unit::hopper, Operands::float8, {float8_e5m2, float8_e4m3fn, float8_e5m2}, float32);
  compare_layouts(Unit::blackwell, Operands::float8, {float8_e4m3fn, float8_e4m3fn, float8_e4m3fn}, float16);
}

// Whole tiles, in every layout that is copied: no more than a tenth above the least that memory could be asked for.
void traffic() {
  using enum FormatId;
  const auto judge = [](const Formats& f, FormatId accumulate, bool a, bool b) {
    ProductCase c{};
    c.m = c.n = 1280;
    c.k = 64;
    c.a_format = f.a;
    c.b_format = f.b;
    c.operands = f.operands;
    c.accumulate = accumulate;
    c.a_at.transposed = a;
    c.b_at.transposed = b;
    c.unit = static_cast<int>(f.operands == float8_e4m3fn ? Unit::rtx_blackwell : Unit::hopper);
    simt::set_architecture(static_cast<Unit>(c.unit));
    const test::Product product(c);
    simt::count(true);
    product.computed<test::DeviceBytes>(device(), true);
    simt::count(false);
    const simt::Traffic t = simt::traffic();
    CHECK(t.requests && t.shared_requests);
    CHECK(t.sectors <= 1.1 * t.ideal_sectors, test::text_of(c), "sectors", t.sectors, "of", t.ideal_sectors);
    CHECK(t.waves <= 1.1 * t.ideal_waves, test::text_of(c), "waves", t.waves, "of", t.ideal_waves);
  };
  for (const auto& [a, b] : {std::pair{false, true}, {false, false}, {true, false}}) {
    judge({float16, float16, float16}, float32, a, b);
    judge({float32, float32, tfloat32}, float32, a, b);
  }
  judge({float8_e4m3fn, float8_e4m3fn, float8_e4m3fn}, float32, false, true);
}

// Units that an architecture has not are refused by name, before anything is computed.
void other_architectures() {
  using enum FormatId;
  const auto refusal = [](Unit architecture, Unit unit, FormatId format) -> std::string {
    ProductCase c{};
    c.m = c.n = 3;
    c.k = 40;
    c.a_format = c.b_format = c.operands = format;
    c.accumulate = float32;
    c.unit = static_cast<int>(unit);
    simt::set_architecture(architecture);
    try {
      test::Product(c).computed(device(), true);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  const std::string text = refusal(Unit::ampere, Unit::ada, float8_e4m3fn);
  CHECK(text ==
            "unit ada (mma.m16n8k32, float8_e4m3fn times float8_e4m3fn): device 'simt' has ampere, whose bits are "
            "others; the CPU computes every unit",
        text);
  CHECK(refusal(Unit::ampere, Unit::hopper, float16) != "");
  CHECK(refusal(Unit::hopper, Unit::ampere, bfloat16) != "");
  CHECK(refusal(Unit::hopper, Unit::ada, float8_e5m2) != "");
  CHECK(refusal(Unit::hopper, Unit::hopper_wgmma, float16) != "");
  CHECK(refusal(Unit::blackwell, Unit::blackwell_tcgen05, bfloat16) != "");
  CHECK(refusal(Unit::hopper, Unit::numpy, float16) != "");
  CHECK(refusal(Unit::none, Unit::hopper, float16).find("no unit that is known") != std::string::npos);
  CHECK(refusal(Unit::hopper, Unit::hopper, float8_e4m3fn) == "");
  CHECK(refusal(Unit::ampere, Unit::ada, float16) == "");  // the same instruction, the same constants
  CHECK(refusal(Unit::hopper, Unit::blackwell, float8_e5m2) == "");
  static_assert(mma::unit_of_capability(8, 6) == Unit::ampere && mma::unit_of_capability(8, 9) == Unit::ada);
  static_assert(mma::unit_of_capability(9, 0) == Unit::hopper && mma::unit_of_capability(7, 5) == Unit::none);
}

// What mma.sync cannot do is refused.
void refusals() {
  for (const mma::Row& row : mma::rows) {
    if (has_kernel(row)) continue;
    executor::ProductArgs args{};
    const Formats f = formats_of(row.operands)[0];
    float wide = 0, x = 1;
    args.m = args.n = args.k = 1;
    args.a = args.b = {f.operands, &x, 1, 1};
    args.operands = f.operands;
    args.accumulate = FormatId::float32;
    args.unit = static_cast<int>(row.unit);
    args.instruction_k = row.k;
    args.wide = &wide;
    CHECK(cuda::products(&args, 1, nullptr) == 801, mma::unit_names[args.unit], row.k);
    CHECK(wide == 0);
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  const executor::Executor cpu = test::usable_executors().back();
  refusals();
  other_architectures();
  simt::set_architecture(mma::Unit::hopper);
  std::int64_t share = 0;
  for (const simt::Order order :
       {simt::Order{simt::Order::forward, 0}, {simt::Order::reverse, 0}, {simt::Order::shuffled, 3}}) {
    simt::set_order(order);
    ragged_sizes(cpu, share++);
  }
  large_tiles(cpu);
  traffic();
  return test::report();
}
