// The kernels of clipping against the CPU's executor, bit by bit, in three orders of threads.
#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "check.hpp"
#include "cuda/kernels.hpp"
#include "device_table.hpp"
#include "same.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using executor::ClipTensor;
using executor::Executor;
using test::FormatId;
using test::same;
using test::Tensor;

// Tensors that begin some entries into the kernels' memory, each with a target of its own.
struct Batch {
  std::vector<test::DeviceBytes> sources, targets;
  std::vector<std::int64_t> shifts;
  std::vector<ClipTensor> args;

  void add(const Tensor& t, std::int64_t shift = 0) {
    args.push_back({t.size() - shift, t.format, nullptr, nullptr});
    sources.push_back(test::on_device(t.bytes));
    shifts.push_back(shift);
  }
  std::int64_t count() const { return static_cast<std::int64_t>(args.size()); }

  // Targets as the sources are; these are the same memory, or their own.
  void restart(bool in_place) {
    targets = sources;
    for (std::size_t i = 0; i < args.size(); ++i) {
      const std::int64_t offset = shifts[i] * formats::container_bytes(args[i].format);
      args[i].target = targets[i].data() + offset;
      args[i].source = in_place ? args[i].target : sources[i].data() + offset;
    }
  }

  std::vector<ops::Survey> survey(const Executor& e, ops::Norm p) const {
    std::vector<ops::Survey> found(args.size());
    e.clip_survey(e, args.data(), count(), p, found.data());
    return found;
  }
};

template <class Run>
void writes(const char* what, Batch& batch, bool in_place, const Executor& cpu, const Executor& device, Run run) {
  std::vector<ops::ClipCounts> want(batch.args.size()), got(batch.args.size());
  batch.restart(in_place);
  run(cpu, want.data());
  const auto bytes = batch.targets;
  batch.restart(in_place);
  run(device, got.data());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::string name = test::name_of(batch.args[i].format);
    CHECK(batch.targets[i] == bytes[i], what, name, batch.args[i].size, batch.shifts[i], in_place);
    CHECK(same(got[i], want[i]), what, name, batch.args[i].size, got[i].flushed, want[i].flushed, got[i].subnormal,
          want[i].subnormal, got[i].overflow, want[i].overflow, got[i].changed, want[i].changed);
  }
}

void every(Batch& batch, const Executor& cpu, const Executor& device, int turn) {
  batch.restart(false);
  for (const auto p : {ops::Norm::one, ops::Norm::two, ops::Norm::infinity}) {
    const auto want = batch.survey(cpu, p), got = batch.survey(device, p);
    for (std::size_t i = 0; i < want.size(); ++i)
      CHECK(same(got[i], want[i]), "survey", test::name_of(batch.args[i].format), batch.args[i].size,
            static_cast<int>(p), got[i].amax, want[i].amax, got[i].medium.high, want[i].medium.high);
  }
  const auto surveys = batch.survey(cpu, ops::Norm::two);
  constexpr double factors[] = {0.3, 0x1.fffffep-1, 0x1p-20, 0.0, 0x1.8p-9, 7.0, 0x1.8p-140, 0x1p127, 1e30f};
  std::vector<ops::ClipFactor> scales;
  std::vector<ops::ClipBounds> bounds;
  for (std::size_t i = 0; i < batch.args.size(); ++i) {
    const std::size_t k = i + static_cast<std::size_t>(turn);
    scales.push_back({static_cast<float>(factors[k % 9]), k % 4 == 0 ? 0x1p-9 : 1.0, k % 5 != 4});
    bounds.push_back({k % 2 ? -0.5 : 0.25, k % 3 ? 2.0 : 0.25, k % 5 != 4});
  }
  for (const bool in_place : {false, true}) {
    for (const bool zero : {false, true}) {
      writes("scale", batch, in_place, cpu, device, [&](const Executor& e, ops::ClipCounts* counts) {
        e.clip_scale(e, batch.args.data(), batch.count(), surveys.data(), scales.data(), zero, counts);
      });
      writes("clamp", batch, in_place, cpu, device, [&](const Executor& e, ops::ClipCounts* counts) {
        e.clip_clamp(e, batch.args.data(), batch.count(), bounds.data(), zero, counts);
      });
    }
  }
}

void add_all(Batch& batch, FormatId format) {
  std::uint64_t seed = 700;
  for (const std::int64_t size : {0, 1, 15, 16, 17, 255, 2047, 2048, 2049, 16383, 16384, 16385, 50000}) {
    auto values = test::random_values(++seed, size, -20, 7);
    batch.add(test::tensor(format, values));
    test::sprinkle(values, format, ++seed, 40);
    batch.add(test::tensor(format, values));
    if (size) batch.add(test::tensor(format, values), 1);
  }
  auto late = test::random_values(++seed, 40000, -20, 7);
  late[20000] = HUGE_VAL;
  late[33000] = std::nan("");
  batch.add(test::tensor(format, late));
  for (const double constant : {0.0, -0.0, -1.75, HUGE_VAL, std::nan("")})
    batch.add(test::tensor(format, std::vector<double>(5000, constant)));
  for (const int low : {-1074, -430, -160, -30, 0, 100, 440, 960})
    batch.add(test::tensor(format, test::random_values(++seed, 5000, low, low + 60)));
  batch.add(test::tensor(format, test::random_values(++seed, 20000, -600, 600)));
}

int fail_survey(const executor::ClipList*, ops::Norm, ops::Survey*, executor::Stream) { return 1; }

// However many tensors: a copy there, one back, and one wait; and no question of an executor that knows where they lie.
void few_calls(executor::DeviceTable table) {
  const executor::DeviceTable counted = test::counting(table);
  Executor asking = executor::device_executor(counted), told = asking;
  told.resident = true;
  Batch batch;
  for (std::uint64_t i = 0; i < 50; ++i)
    batch.add(test::tensor(FormatId::float32, test::random_values(i, 1 + static_cast<std::int64_t>(i), -9, 9)));
  batch.restart(true);
  const std::vector<ops::ClipFactor> factors(50, {0.5, 1.0, true});
  const std::vector<ops::ClipBounds> bounds(50, {-0.5, 0.5, true});
  for (const Executor* e : {&asking, &told}) {
    std::vector<ops::Survey> surveys(50);
    std::vector<ops::ClipCounts> counts(50);
    for (const test::Calls& calls : {
             test::calls_of([&] { e->clip_survey(*e, batch.args.data(), 50, ops::Norm::two, surveys.data()); }),
             test::calls_of([&] {
               e->clip_scale(*e, batch.args.data(), 50, surveys.data(), factors.data(), false, counts.data());
             }),
             test::calls_of([&] { e->clip_clamp(*e, batch.args.data(), 50, bounds.data(), false, counts.data()); }),
         }) {
      CHECK(calls.device_of == (e == &told ? 0 : 50), calls.device_of);
      CHECK(calls.copies == 2 && calls.waits == 1, calls.copies, calls.waits);
    }
  }
  // Where a launch fails, what was sent is waited for before its memory is anybody else's.
  table.clip_survey = fail_survey;
  const executor::DeviceTable broken = test::counting(table);
  const Executor failing = executor::device_executor(broken);
  const test::Calls calls = test::calls_of([&] {
    try {
      batch.survey(failing, ops::Norm::two);
      CHECK(false, "no error");
    } catch (const base::DeviceError&) {
    }
  });
  CHECK(calls.copies == 1 && calls.waits == 1, calls.copies, calls.waits);
}

// What lies on the host is copied there and back, and waited for once.
void on_the_host(const Executor& cpu, const executor::DeviceTable& table) {
  const executor::DeviceTable counted = test::counting(table);
  const Executor device = executor::device_executor(counted);
  test::Tensor here = test::tensor(FormatId::bfloat16, test::random_values(3, 40000, -9, 9)), want = here;
  const ops::ClipBounds bounds{-0.5, 0.25, true};
  ops::ClipCounts got, expected;
  const ClipTensor ours{here.size(), here.format, here.bytes.data(), here.bytes.data()},
      theirs{want.size(), want.format, want.bytes.data(), want.bytes.data()};
  const test::Calls calls = test::calls_of([&] { device.clip_clamp(device, &ours, 1, &bounds, false, &got); });
  cpu.clip_clamp(cpu, &theirs, 1, &bounds, false, &expected);
  CHECK(here.bytes == want.bytes && same(got, expected), got.changed, expected.changed);
  CHECK(calls.copies == 4 && calls.waits == 1, calls.copies, calls.waits);
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  executor::DeviceTable table = test::memory_table();
  table.clip_survey = cuda::clip_survey;
  table.clip_scale = cuda::clip_scale;
  table.clip_clamp = cuda::clip_clamp;
  const auto cpu = test::usable_executors().front(), device = executor::device_executor(table);
  Batch batch;
  for (const auto format : test::all_formats) add_all(batch, format);
  int turn = 0;
  for (const auto order : test::orders) {
    simt::set_order(order);
    every(batch, cpu, device, turn++);
  }
  few_calls(table);
  on_the_host(cpu, table);
  return test::report();
}
