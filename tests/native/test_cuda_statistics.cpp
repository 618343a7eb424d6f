// The kernels of statistics against the CPU's executor, bit by bit, in three orders of threads.
#include <algorithm>
#include <map>
#include <memory>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "cuda/kernels.hpp"
#include "device_table.hpp"
#include "same.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using executor::StatisticsArgs;
using test::FormatId;
using test::same;

bool same_cells(const ops::Statistics& a, const ops::Statistics& b) {
  const auto count = [](const ops::Statistics& s, int binade, int cell) {
    return s.binades.first <= binade && binade < s.binades.last ? s.binades.row(binade)[cell] : 0;
  };
  bool equal = true;
  for (int binade = ops::binade_min; binade < ops::binade_min + ops::binade_count; ++binade)
    for (int c = 0; c < ops::cell_count; ++c) equal &= count(a, binade, c) == count(b, binade, c);
  return equal;
}

// A tensor that begins `shift` entries into the kernels' memory.
struct Shifted {
  FormatId format;
  std::int64_t size, shift;
  test::DeviceBytes bytes;

  Shifted(const test::Tensor& t, std::int64_t at)
      : format(t.format), size(t.size() - at), shift(at), bytes(test::on_device(t.bytes)) {}

  StatisticsArgs args() const { return {size, format, bytes.data() + shift * formats::container_bytes(format)}; }
};

using Measured = std::vector<std::unique_ptr<ops::Statistics>>;

Measured measured(const executor::Executor& e, const std::vector<StatisticsArgs>& args) {
  Measured all(args.size());
  e.statistics(e, args.data(), static_cast<std::int64_t>(args.size()), [&](std::int64_t i, const ops::Statistics& s) {
    auto& one = all[static_cast<std::size_t>(i)];
    CHECK(!one, i);
    one = std::make_unique<ops::Statistics>(s);
  });
  return all;
}

void compare(const std::vector<StatisticsArgs>& args, const Measured& got, const Measured& want, const char* what) {
  for (std::size_t i = 0; i < args.size(); ++i) {
    const auto &a = *got[i], &b = *want[i];
    const std::string name = test::name_of(args[i].format);
    CHECK(a.size == b.size && a.nan == b.nan && a.pos_inf == b.pos_inf && a.neg_inf == b.neg_inf, what, name, a.size);
    CHECK(a.zero == b.zero && a.negative == b.negative && a.subnormal == b.subnormal, what, name, a.size, a.zero,
          b.zero, a.negative, b.negative);
    CHECK(a.first_nonfinite == b.first_nonfinite, what, name, a.size, a.first_nonfinite, b.first_nonfinite);
    CHECK(a.amax == b.amax && a.amin == b.amin, what, name, a.size, a.amax, b.amax, a.amin, b.amin);
    CHECK(same(a.moments, b.moments), what, name, a.size, a.moments.mean, b.moments.mean, a.moments.l1, b.moments.l1);
    CHECK(same_cells(a, b), what, name, a.size);
  }
}

// Values of every kind, each as a tensor of each size.
std::vector<Shifted> tensors_of(FormatId format) {
  std::vector<Shifted> list;
  std::uint64_t seed = 300;
  const auto add = [&](std::vector<double> values, std::int64_t shift = 0) {
    list.emplace_back(test::tensor(format, values), shift);
  };
  for (const std::int64_t size : {0, 1, 15, 16, 17, 255, 2047, 2048, 2049, 16383, 16384, 16385, 50000}) {
    auto values = test::random_values(++seed, size, -20, 12);
    add(values);
    for (const std::int64_t shift : {1, 3}) add(test::random_values(++seed, size + shift, -20, 12), shift);
    auto special = values;
    test::sprinkle(special, format, ++seed, 40);
    add(special);
    for (double& x : values) x = 1000 + x;  // far from zero: moments that cancel in one pass
    add(values);
    test::sprinkle(values, format, ++seed, 700);
    add(values);
  }
  auto late = test::random_values(++seed, 40000, -20, 12);
  late[20000] = HUGE_VAL;
  late[33000] = std::nan("");
  add(late);
  for (const double constant : {0.0, -0.0, -1.75, 1.0, HUGE_VAL, std::nan("")})
    add(std::vector<double>(5000, constant));
  for (const int low : {-1074, -420, -160, 440, 960}) add(test::random_values(++seed, 5000, low, low + 60));
  auto mixed = test::random_values(++seed, 20000, -300, 300);
  std::fill_n(mixed.begin() + 2048, 2048, 0.0);
  add(mixed);
  return list;
}

void every_format(const executor::Executor& cpu, const executor::Executor& device) {
  std::vector<Shifted> all;
  for (const FormatId format : test::all_formats)
    for (Shifted& t : tensors_of(format)) all.push_back(std::move(t));
  std::vector<StatisticsArgs> args;
  for (const Shifted& t : all) args.push_back(t.args());
  const Measured want = measured(cpu, args);
  for (const auto order : test::orders) {
    simt::set_order(order);
    compare(args, measured(device, args), want, "list");
  }
}

// Large enough to be counted by pattern.
void by_pattern(const executor::Executor& cpu, const executor::Executor& device) {
  std::vector<Shifted> all;
  for (const FormatId format : {FormatId::float8_e4m3fn, FormatId::float8_e5m2}) {
    const std::int64_t size = (1 << 12) + 1003;
    for (const std::int64_t shift : {0, 1}) {
      auto values = test::random_values(500, size, -60, 20);
      all.emplace_back(test::tensor(format, values), shift);
      test::sprinkle(values, format, 501, 40);
      all.emplace_back(test::tensor(format, values), shift);
    }
  }
  std::vector<StatisticsArgs> args;
  for (const Shifted& t : all) args.push_back(t.args());
  const Measured want = measured(cpu, args);
  for (const auto order : test::orders) {
    simt::set_order(order);
    compare(args, measured(device, args), want, "patterns");
  }
}

std::int64_t borrowed = 0, most_borrowed = 0;
std::map<void*, std::int64_t> sizes;

int counting_allocate(void** pointer, std::int64_t bytes, executor::Stream stream) {
  const int error = cuda::allocate(pointer, bytes, stream);
  sizes[*pointer] = bytes;
  most_borrowed = std::max(most_borrowed, borrowed += bytes);
  return error;
}

int counting_release(void* pointer, executor::Stream stream) {
  borrowed -= sizes[pointer];
  return cuda::release(pointer, stream);
}

// Many tensors of a few entries, whose cells alone would take 150 MB, and one that takes more than the bound by itself.
void bounded_memory(const executor::Executor& cpu, executor::DeviceTable table) {
  table.allocate = counting_allocate;
  table.release = counting_release;
  const executor::Executor device = executor::device_executor(table);
  simt::set_order({simt::Order::forward});
  std::vector<test::Tensor> tensors;
  for (std::uint64_t i = 0; i < 1500; ++i)
    tensors.push_back(
        test::tensor(FormatId::float64, test::random_values(i, 1 + static_cast<std::int64_t>(i % 7), -90, 90)));
  std::vector<StatisticsArgs> args;
  for (const test::Tensor& t : tensors) args.push_back({t.size(), t.format, t.bytes.data()});
  compare(args, measured(device, args), measured(cpu, args), "many");
  CHECK(borrowed == 0 && 16 << 20 < most_borrowed && most_borrowed < 34 << 20, most_borrowed);
  tensors.push_back(test::tensor(FormatId::float64, test::random_values(7, 5 << 20, -90, 90)));
  most_borrowed = 0;
  const test::Tensor& large = tensors.back();
  args.back() = {large.size(), large.format, large.bytes.data()};
  args[0] = args.back();
  compare(args, measured(device, args), measured(cpu, args), "many and two large ones");
  CHECK(borrowed == 0 && most_borrowed < 42 << 20, most_borrowed);
}

// A copy there, one back and one wait for each way of measuring, and no question of an executor that knows where all lie.
void few_calls(const executor::DeviceTable& table) {
  const executor::DeviceTable counted = test::counting(table);
  executor::Executor device = executor::device_executor(counted);
  std::vector<Shifted> chunks, patterns;
  for (std::uint64_t i = 0; i < 20; ++i) {
    chunks.emplace_back(test::tensor(FormatId::float32, test::random_values(i, 30, -9, 9)), 0);
    patterns.emplace_back(test::tensor(FormatId::float8_e5m2, test::random_values(i, 5000, -9, 9)), 0);
  }
  for (const bool resident : {false, true}) {
    device.resident = resident;
    for (const auto* tensors : {&chunks, &patterns}) {
      std::vector<StatisticsArgs> args;
      for (const Shifted& t : *tensors) args.push_back(t.args());
      const test::Calls calls = test::calls_of([&] { measured(device, args); });
      CHECK(resident == (calls.device_of == 0), calls.device_of);
      CHECK(calls.copies == 2 && calls.waits == 1, calls.copies, calls.waits);
    }
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  executor::DeviceTable table = test::memory_table();
  table.statistics = cuda::statistics;
  table.count_patterns = cuda::count_patterns;
  const auto cpu = test::usable_executors().front(), device = executor::device_executor(table);
  every_format(cpu, device);
  by_pattern(cpu, device);
  bounded_memory(cpu, table);
  few_calls(table);
  return test::report();
}
