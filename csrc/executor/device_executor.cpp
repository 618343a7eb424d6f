// The executor over a device's table: arguments on the host are copied there, results and partial results back.
#include <span>
#include <vector>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "executor/staging.hpp"
#include "ops/patterns.hpp"

namespace gradkern::executor {
namespace {

const DeviceTable& table_of(const Executor& e) { return *e.device; }

std::int64_t bytes_of(FormatId format, std::int64_t count) { return count * formats::container_bytes(format); }

// The partial results of a tensor's chunks, merged in index order.
template <class T>
T merged(Staging& staging, const T* partials, std::int64_t count) {
  T total;
  for (const T& part : staging.fetch(partials, count)) total.merge(part);
  return total;
}

void convert(const Executor& e, const ConvertArgs& args) {
  if (args.counts) *args.counts = {};
  if (args.size == 0) return;
  Staging staging(e);
  ConvertArgs a = args;
  const std::int64_t chunks = base::chunk_count(args.size, ops::rounding_chunk);
  a.source = staging.in(args.source, bytes_of(args.source_format, args.size));
  a.stored = staging.out(args.stored, bytes_of(args.format, args.size));
  a.counts = args.counts ? staging.scratch<ops::RoundingCounts>(chunks) : nullptr;
  staging.check(table_of(e).convert(&a, 1, staging.stream()), "convert");
  if (args.counts) *args.counts = merged(staging, a.counts, chunks);
  staging.finish();
}

Operand staged(Staging& staging, const Operand& operand, std::int64_t rows, std::int64_t columns) {
  Operand o = operand;
  const std::int64_t count =
      rows && columns ? (rows - 1) * operand.row_stride + (columns - 1) * operand.column_stride + 1 : 0;
  o.data = staging.in(operand.data, bytes_of(operand.format, count));
  return o;
}

void products(const Executor& e, const ProductArgs* args, std::int64_t count) {
  Staging staging(e);
  std::vector<ProductArgs> list;
  for (const ProductArgs& given : std::span(args, static_cast<std::size_t>(count))) {
    check_unit(table_of(e), given);
    if (given.m * given.n == 0) continue;
    ProductArgs& p = list.emplace_back(given);
    p.a = staged(staging, given.a, given.m, given.k);
    p.b = staged(staging, given.b, given.k, given.n);
    if (given.bias)
      p.bias = staging.in(given.bias, bytes_of(given.bias_format, given.bias_row ? given.m * given.n : given.n));
    p.wide =
        staging.out(given.wide, bytes_of(wide_format(given.accumulate), given.m * given.n), given.continued != nullptr);
    if (given.k == 0) p.a.data = p.b.data = p.wide;  // operands without entries: something to point at
  }
  if (list.empty()) return;
  staging.check(table_of(e).products(list.data(), static_cast<int>(list.size()), staging.stream()), "product");
  staging.finish();
}

void matvec(const Executor& e, const MatvecArgs& args) {
  Staging staging(e);
  MatvecArgs a = args;
  const std::int64_t in = args.transposed ? args.rows : args.columns, out = args.transposed ? args.columns : args.rows;
  a.matrix = staging.in(args.matrix, bytes_of(args.format, args.rows * args.columns));
  a.x = static_cast<const double*>(staging.in(args.x, args.vectors * in * 8));
  a.y = static_cast<double*>(staging.out(args.y, args.vectors * out * 8));
  if (in == 0) a.matrix = a.y;  // no entries: something to point at
  staging.check(table_of(e).matvec(&a, staging.stream()), "matvec");
  staging.finish();
}

void activation(const Executor& e, const ActivationArgs& args, int (*kernel)(const ActivationArgs*, Stream)) {
  if (args.size == 0) return;
  Staging staging(e);
  ActivationArgs a = args;
  const std::int64_t stored = bytes_of(args.format, args.size), wide = bytes_of(wide_format(args.format), args.size);
  a.pre_activation = staging.in(args.pre_activation, stored);
  a.grad_output = staging.in(args.grad_output, stored);
  a.output = staging.in(args.output, stored);
  a.wide = staging.out(args.wide, wide);
  a.slope = staging.out(args.slope, wide);
  staging.check(kernel(&a, staging.stream()), "activation");
  staging.finish();
}

void activation_forward(const Executor& e, const ActivationArgs& args) {
  activation(e, args, table_of(e).activation_forward);
}

void activation_backward(const Executor& e, const ActivationArgs& args) {
  activation(e, args, table_of(e).activation_backward);
}

void errors(const Executor& e, const ErrorArgs& args, ErrorSums& sums) {
  if (args.size == 0) return;
  Staging staging(e);
  ErrorArgs a = args;
  const std::int64_t chunks = base::chunk_count(args.size, ops::rounding_chunk);
  a.stored = staging.in(args.stored, bytes_of(args.format, args.size));
  a.truth = static_cast<const double*>(staging.in(args.truth, args.size * 8));
  auto* partials = staging.scratch<ErrorSums>(chunks);
  staging.check(table_of(e).errors(&a, partials, staging.stream()), "errors");
  sums.merge(merged(staging, partials, chunks));
}

void update(const Executor& e, const UpdateArgs& args) {
  if (args.counts) *args.counts = {};
  if (args.size == 0) return;
  Staging staging(e);
  UpdateArgs a = args;
  const std::int64_t chunks = base::chunk_count(args.size, ops::rounding_chunk),
                     bytes = bytes_of(args.format, args.size);
  a.gradient = staging.in(args.gradient, bytes_of(args.gradient_format, args.size));
  if (args.updated == args.weight) {
    a.updated = staging.out(args.updated, bytes, true);
    a.weight = a.updated;
  } else {
    a.weight = staging.in(args.weight, bytes);
    a.updated = staging.out(args.updated, bytes);
  }
  a.counts = args.counts ? staging.scratch<ops::UpdateCounts>(chunks) : nullptr;
  staging.check(table_of(e).update(&a, staging.stream()), "update");
  if (args.counts) *args.counts = merged(staging, a.counts, chunks);
  staging.finish();
}

template <class T>
void elementary(const Executor& e, int function, const T* x, T* y, std::int64_t size,
                int (*kernel)(int, const T*, T*, std::int64_t, Stream)) {
  if (size == 0) return;
  Staging staging(e);
  const auto bytes = size * static_cast<std::int64_t>(sizeof(T));
  const T* in = static_cast<const T*>(staging.in(x, bytes));
  T* out = static_cast<T*>(staging.out(y, bytes));
  staging.check(kernel(function, in, out, size, staging.stream()), "elementary");
  staging.finish();
}

void elementary_f32(const Executor& e, int function, const float* x, float* y, std::int64_t size) {
  elementary(e, function, x, y, size, table_of(e).elementary_f32);
}

void elementary_f64(const Executor& e, int function, const double* x, double* y, std::int64_t size) {
  elementary(e, function, x, y, size, table_of(e).elementary_f64);
}

std::int64_t no_multiply_adds(const Executor&, bool, std::int64_t) {
  throw std::invalid_argument("multiply_adds: the roof is measured on the CPU only");
}

thread_local Stream stream_of_thread = nullptr;

}  // namespace

Stream current_stream() { return stream_of_thread; }
void set_current_stream(Stream stream) { stream_of_thread = stream; }

void check(const DeviceTable& table, int error, const char* doing) {
  if (error != 0) throw base::DeviceError(std::string(doing) + ": " + table.error_text(error));
}

Executor device_executor(const DeviceTable& table) {
  return {table.name,
          0,
          nullptr,
          convert,
          products,
          matvec,
          activation_forward,
          activation_backward,
          device_statistics,
          errors,
          device_clip_survey,
          device_clip_scale,
          device_clip_clamp,
          update,
          elementary_f32,
          elementary_f64,
          no_multiply_adds,
          &table};
}

}  // namespace gradkern::executor
