// A run that stays on a device: every record equal to that of the CPU's run in every field and bit, for many arithmetics
// and shapes, with ordinary and non-finite inputs, with arguments in one part or in many, and whether the device works at
// once or only when somebody waits.
#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "chain/device_run.hpp"
#include "chain/run.hpp"
#include "device_table.hpp"
#include "host_table.hpp"
#include "mma/units.hpp"
#include "same.hpp"

namespace gradkern {
namespace {

using formats::Mode;
using formats::Overflow;
using formats::Rounding;
using formats::Subnormals;
using test::FormatId;

constexpr ops::ActivationId activations[] = {ops::ActivationId::tanh, ops::ActivationId::relu, ops::ActivationId::gelu,
                                             ops::ActivationId::identity};

struct Case {
  std::vector<std::int64_t> widths;
  std::int64_t batch;
  chain::Arithmetic arithmetic;
  FormatId given = FormatId::float64;  // weights and input
  double scale = 64, gain = 1;
  bool biases = true, wild = false;
  std::int64_t part_bytes = chain::DevicePlan::usual_part_bytes;
};

struct Net {
  std::vector<test::Tensor> tensors;
  std::vector<chain::Layer> layers;
  test::Tensor input;
  chain::Values gradient;
};

chain::Source source(const test::Tensor& t) { return {t.format, t.data(), t.size()}; }

Net net(const Case& c) {
  Net n;
  const auto values = [&](std::uint64_t seed, std::int64_t size, double gain) {
    std::vector<double> v = test::random_values(seed, size, -4, 0);
    for (double& x : v) x *= gain;
    if (c.wild) test::sprinkle(v, c.arithmetic.storage, seed, 97);
    return v;
  };
  for (std::size_t l = 1; l < c.widths.size(); ++l) {
    n.tensors.push_back(test::tensor(c.given, values(60 + l, c.widths[l - 1] * c.widths[l], c.gain)));
    n.tensors.push_back(test::tensor(c.given, values(90 + l, c.widths[l], 1)));
  }
  for (std::size_t l = 1; l < c.widths.size(); ++l)
    n.layers.push_back({c.widths[l - 1],
                        c.widths[l],
                        source(n.tensors[2 * l - 2]),
                        c.biases && l != 2 ? source(n.tensors[2 * l - 1]) : chain::Source{},
                        {activations[l % 4], 0.0}});
  n.input = test::tensor(c.given, values(80, c.batch * c.widths[0], 1));
  const std::vector<double> gradient = test::random_values(81, c.batch * c.widths.back(), -9, 0);
  n.gradient.assign(gradient.begin(), gradient.end());
  return n;
}

using test::same;

bool same(const chain::Summary& a, const chain::Summary& b) {
  return a.size == b.size && a.nan == b.nan && a.pos_inf == b.pos_inf && a.neg_inf == b.neg_inf && a.zero == b.zero &&
         a.negative == b.negative && a.subnormal == b.subnormal && a.first_nonfinite == b.first_nonfinite &&
         same(a.amax, b.amax) && same(a.amin, b.amin) && same(a.moments, b.moments) &&
         a.first_binade == b.first_binade && a.cells == b.cells;
}

void check_case(const Case& c, const executor::Executor& device, bool measured = true) {
  const Net n = net(c);
  chain::Run cpu(executor::host(), c.arithmetic, n.layers, source(n.input), c.batch, c.scale, false, false, measured);
  chain::DeviceRun run(device, c.arithmetic, n.layers, source(n.input), c.batch, c.scale, measured, c.part_bytes);
  std::int64_t last = -1, polls = 0;
  const auto quiet = [](std::int64_t, std::int64_t) {};
  const auto poll = [&](std::int64_t done, std::int64_t all) {
    CHECK(done > last && done <= all && all == 2 * std::int64_t(n.layers.size()), done, last, all);
    last = done;
    ++polls;
  };
  cpu.forward(quiet);
  run.forward(poll);
  const auto expected = cpu.output(), output = run.output();
  CHECK(output.size() == expected.size());
  for (std::size_t i = 0; i < output.size(); ++i)
    CHECK(same(output[i], expected[i]) || (output[i] != output[i] && expected[i] != expected[i]), i);
  cpu.backward(n.gradient, {}, quiet);
  run.backward(n.gradient, {}, poll);
  CHECK(last == 2 * std::int64_t(n.layers.size()) && polls == last + 1, last, polls);
  const auto &truth = cpu.records(), &records = run.records();
  CHECK(records.size() == truth.size(), records.size(), truth.size());
  for (std::size_t i = 0; i < records.size() && i < truth.size(); ++i) {
    const chain::Record &r = records[i], &t = truth[i];
    const auto where = std::string(device.name) + ' ' + test::name_of(c.arithmetic.storage) + " layer " +
                       std::to_string(r.layer) + ' ' + chain::role_names[static_cast<int>(r.role)];
    CHECK(r.layer == t.layer && r.role == t.role, where);
    CHECK(same(r.rounding, t.rounding), where, c.batch);
    CHECK(same(r.stored, t.stored), where, c.batch);
  }
}

chain::Arithmetic plain(FormatId storage, FormatId accumulate = FormatId::float32) {
  return {storage, storage, accumulate, {}, false};
}

std::vector<chain::Arithmetic> arithmetics() {
  std::vector<chain::Arithmetic> list = {plain(FormatId::float64, FormatId::float64),
                                         plain(FormatId::float64, FormatId::float32),
                                         plain(FormatId::float32, FormatId::float64),
                                         plain(FormatId::float32),
                                         plain(FormatId::float16),
                                         plain(FormatId::float16, FormatId::float16),
                                         plain(FormatId::bfloat16),
                                         plain(FormatId::bfloat16, FormatId::bfloat16),
                                         plain(FormatId::float8_e4m3fn),
                                         plain(FormatId::float8_e5m2)};
  chain::Arithmetic tf32 = plain(FormatId::float32);
  tf32.operands = FormatId::tfloat32;
  list.push_back(tf32);
  for (const FormatId storage : {FormatId::float16, FormatId::bfloat16}) {
    list.push_back(plain(storage));
    list.back().unit = static_cast<int>(mma::Unit::hopper);
  }
  for (const FormatId storage : {FormatId::float32, FormatId::float16, FormatId::bfloat16, FormatId::float8_e4m3fn}) {
    for (const Mode mode : {Mode{Rounding::toward_zero, Overflow::ieee, Subnormals::keep, 0},
                            Mode{Rounding::stochastic, Overflow::ieee, Subnormals::keep, 7},
                            Mode{Rounding::nearest_even, Overflow::saturate, Subnormals::flush, 0}}) {
      chain::Arithmetic a = plain(storage);
      a.mode = mode;
      a.stored_output_derivative = true;
      list.push_back(a);
    }
  }
  return list;
}

void same_records(const executor::Executor& device) {
  for (const chain::Arithmetic& a : arithmetics()) {
    check_case({{5, 7, 1, 33, 4}, 3, a}, device);
    check_case({{5, 7, 1, 33, 4}, 1, a, FormatId::float32, 1, 1, false}, device);
    check_case({{9, 70, 70, 10}, 70, a, a.storage, 1, 0x1p12, true, true}, device);
    check_case({{9, 17, 3}, 33, a, FormatId::float16, 1024, 0x1p-12, true, true}, device);
    check_case({{40, 300, 20}, 64, a, FormatId::float64, 1}, device);
  }
  check_case({{5, 7, 4}, 3, plain(FormatId::float16)}, device, false);
}

// Arguments in many parts, more than are on their way at once; odd shapes, and none at all.
void same_records_in_parts(const executor::Executor& device) {
  chain::Arithmetic stochastic = plain(FormatId::float16);
  stochastic.mode = {Rounding::stochastic, Overflow::ieee, Subnormals::keep, 7};
  const std::vector<std::int64_t> deep(20, 33);
  for (const chain::Arithmetic& a : {plain(FormatId::float16), plain(FormatId::float32), stochastic})
    for (const FormatId given : {FormatId::float64, FormatId::float16})
      for (const std::int64_t part_bytes : {1, 5000}) {
        check_case({deep, 5, a, given, 64, 1, true, true, part_bytes}, device);
        check_case({{300, 1, 200, 129}, 3, a, given, 1, 1, true, false, part_bytes}, device);
        check_case({{3, 4, 2}, 0, a, given, 64, 1, true, false, part_bytes}, device);
      }
}

// A bias gradient's ones, copied as they lie by a unit's kernel.
void same_sums_on_a_unit(const executor::Executor& device) {
  chain::Arithmetic a = plain(FormatId::float16);
  a.unit = static_cast<int>(mma::Unit::hopper);
  check_case({{16, 32, 64, 32}, 48, a}, device);
}

// Large tensors: several chunks, and statistics by pattern.
void same_large_records(const executor::Executor& device) {
  for (const bool wild : {false, true}) {
    check_case({{70, 300, 300}, 60, plain(FormatId::float8_e5m2), FormatId::float32, 8, 1, true, wild}, device);
    check_case({{70, 300, 300}, 60, plain(FormatId::float32), FormatId::float32, 8, 1, true, wild}, device);
  }
  check_case({{1024, 1024}, 2, plain(FormatId::bfloat16), FormatId::bfloat16, 8, 1, true, true}, device);
}

int fail_products(const executor::ProductArgs*, int, executor::Stream) { return 1; }

template <class Error, class Body>
bool throws(Body body) {
  try {
    body();
  } catch (const Error&) {
    return true;
  }
  return false;
}

// What fails on the device is a DeviceError; a poll that throws ends the run; nothing stays allocated.
void errors_end_the_run(executor::DeviceTable table) {
  const executor::Executor good = executor::device_executor(table);
  const Case c{{5, 7, 4}, 3, plain(FormatId::float16)};
  const Net n = net(c);
  const auto quiet = [](std::int64_t, std::int64_t) {};
  const auto stop = [](std::int64_t, std::int64_t) { throw std::domain_error("stopped"); };
  chain::DeviceRun run(good, c.arithmetic, n.layers, source(n.input), c.batch, 1, true);
  CHECK(throws<std::invalid_argument>([&] { run.backward(n.gradient, {}, quiet); }));
  run.forward(quiet);
  CHECK(throws<std::invalid_argument>([&] { run.forward(quiet); }));
  CHECK(throws<std::invalid_argument>([&] { run.backward({1.0}, {}, quiet); }));
  CHECK(throws<std::domain_error>([&] { run.backward(n.gradient, {}, stop); }));
  table.products = fail_products;
  const executor::Executor bad = executor::device_executor(table);
  chain::DeviceRun failing(bad, c.arithmetic, n.layers, source(n.input), c.batch, 1, true);
  CHECK(throws<base::DeviceError>([&] { failing.forward(quiet); }));
}

// Products, activations and roundings of each layer, the gradients of one at once, and one launch for the statistics of each direction.
void few_launches(const executor::Executor& device) {
  using test::host_table::launches;
  for (const auto& [storage, forward, backward] :
       {std::tuple{FormatId::float32, 2, 2}, std::tuple{FormatId::float16, 4, 4}}) {
    for (const std::int64_t depth : {1, 10}) {
      const Case c{std::vector<std::int64_t>(static_cast<std::size_t>(depth + 1), 8), 4, plain(storage), storage, 1};
      const Net n = net(c);
      chain::DeviceRun run(device, c.arithmetic, n.layers, source(n.input), c.batch, 1, true);
      const std::int64_t before = launches;
      run.forward([](std::int64_t, std::int64_t) {});
      run.backward(n.gradient, {}, [](std::int64_t, std::int64_t) {});
      CHECK(launches - before == depth * (forward + backward) + 2, launches - before, depth);
    }
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  cpu::register_executors();
  base::set_num_threads(2);
  const executor::DeviceTable table = test::host_table::table();
  const executor::Executor device = executor::device_executor(table);
  for (const bool waits : {false, true}) {
    test::host_table::waits = waits;
    same_records(device);
    same_records_in_parts(device);
    same_large_records(device);
    errors_end_the_run(table);
    few_launches(device);
  }
  const executor::DeviceTable simt = test::memory_table();
  const executor::Executor kernels = executor::device_executor(simt);
  same_records(kernels);
  same_records_in_parts(kernels);
  same_sums_on_a_unit(kernels);
  same_large_records(kernels);
  return test::report();
}
