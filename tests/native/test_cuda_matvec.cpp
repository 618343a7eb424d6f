// The kernels of matrix times vectors against the CPU's executor, bit by bit, in three orders of threads.
#include "base/thread_pool.hpp"
#include "check.hpp"
#include "cuda/kernels.hpp"
#include "device_table.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using executor::Executor;
using executor::MatvecArgs;
using test::FormatId;

void one(const Executor& cpu, const Executor& device, FormatId format, std::int64_t rows, std::int64_t columns,
         std::int64_t vectors, bool transposed, std::int64_t shift) {
  auto values = test::random_values(41, rows * columns + shift, -20, 7);
  const auto bytes = test::on_device(test::tensor(format, values).bytes);
  const std::int64_t in = transposed ? rows : columns, out = transposed ? columns : rows;
  auto x = test::random_values(42, vectors * in, -8, 8);
  if (vectors > 4) test::sprinkle(x, FormatId::float64, 43, 5000);
  const std::int64_t width = values.empty() ? 0 : static_cast<std::int64_t>(bytes.size() / values.size());
  std::vector<double> want(static_cast<std::size_t>(vectors * out), -7), got = want;
  MatvecArgs args{rows, columns, vectors, format, bytes.data() + shift * width, transposed, x.data(), want.data()};
  cpu.matvec(cpu, args);
  args.y = got.data();
  device.matvec(device, args);
  for (std::size_t i = 0; i < want.size(); ++i)
    CHECK(test::same(got[i], want[i]) || (got[i] != got[i] && want[i] != want[i]), test::name_of(format), rows, columns,
          vectors, transposed, shift, i, got[i], want[i]);
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  executor::DeviceTable table = test::memory_table();
  table.matvec = cuda::matvec;
  const auto cpu = test::usable_executors().front(), device = executor::device_executor(table);
  struct Shape {
    std::int64_t rows, columns, vectors, shift;
  };
  constexpr Shape shapes[] = {{0, 5, 1, 0},    {5, 0, 1, 0},     {1, 1, 1, 0},      {1, 16, 2, 0},    {17, 15, 3, 0},
                              {9, 64, 16, 0},  {33, 256, 4, 0},  {100, 512, 1, 0},  {40, 1040, 5, 0}, {70, 127, 1, 0},
                              {300, 48, 2, 0}, {64, 1024, 1, 1}, {129, 272, 16, 0}, {2, 5001, 1, 3}};
  for (const auto order : test::orders) {
    simt::set_order(order);
    for (const auto format : test::all_formats)
      for (const Shape& s : shapes)
        for (const bool transposed : {false, true})
          one(cpu, device, format, s.rows, s.columns, s.vectors, transposed, s.shift);
  }
  return test::report();
}
