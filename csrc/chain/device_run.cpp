#include "chain/device_run.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "executor/device_statistics.hpp"
#include "executor/registry.hpp"

namespace gradkern::chain {

DeviceRun::DeviceRun(const Executor& device, Arithmetic arithmetic, std::vector<Layer> layers, Source input,
                     std::int64_t batch, double loss_scale, bool measured, std::int64_t part_bytes)
    : table_(*device.device),
      arithmetic_(arithmetic),
      layers_((check_shapes(layers, input, batch), std::move(layers))),
      batch_(batch),
      loss_scale_(loss_scale),
      plan_(arithmetic, layers_, input, batch, loss_scale, measured, part_bytes) {
  check(table_.stream_create(&stream_), "probe: stream");
}

DeviceRun::~DeviceRun() {
  if (!staged_.empty()) table_.synchronize(stream_);
  if (memory_) table_.release(memory_, stream_);
  table_.stream_destroy(stream_);
}

void DeviceRun::copy(void* to, const void* from, std::int64_t bytes) const {
  if (bytes) check(table_.copy(to, from, bytes, stream_), "probe: copy");
}

executor::Operand DeviceRun::operand(std::int64_t tensor, std::int64_t row_stride, std::int64_t column_stride) const {
  return {plan_.storage, at<void>(plan_.tensor(tensor).values), row_stride, column_stride};
}

// Every product is of tensors in storage.
void DeviceRun::check_units() const {
  const executor::Operand stored{plan_.storage, nullptr, 1, 1};
  executor::check_unit(table_, completed(product(1, 1, 1, stored, stored), arithmetic_, Role::weight, nullptr));
}

void DeviceRun::wait(const char* doing) {
  check(table_.synchronize(stream_), doing);
  staged_.clear();
  staged_bytes_ = 0;
}

// Page-locked memory for one copy to the device.
std::uint8_t* DeviceRun::stage(std::int64_t bytes) {
  if (staged_bytes_ >= plan_.most_staged_bytes()) wait("probe: copy");
  staged_bytes_ += executor::Pinned::size_of(bytes);
  return staged_.emplace_back(table_, bytes).as<std::uint8_t>();
}

// stored = fl(source * scale). The records' order numbers the tensors.
void DeviceRun::round_argument(const DeviceArgument& argument, double scale, std::uint8_t* stored) {
  const auto& [tensor, source] = argument;
  const Executor& host = executor::host();
  host.convert(host, {source.size, source.format, plan_.storage, source.data, stored, scale, arithmetic_.mode,
                      static_cast<std::uint64_t>(tensor),
                      plan_.measured ? &records_[static_cast<std::size_t>(tensor)].rounding : nullptr});
}

// Arguments that follow one another on the device, by one copy. Threads share them out, or each one where it is large and
// they are few; what is stored as it is, in slices.
void DeviceRun::send(std::span<const DeviceArgument> arguments, double scale) {
  constexpr std::int64_t slice = 1 << 17;
  const auto values = [&](const DeviceArgument& a) { return plan_.tensor(a.tensor).values; };
  const auto bytes = [&](const DeviceArgument& a) { return a.source.size * container_bytes(plan_.storage); };
  const std::int64_t begin = values(arguments.front()), end = values(arguments.back()) + bytes(arguments.back());
  if (begin == end) return;
  std::uint8_t* staged = stage(end - begin);
  const auto place = [&](const DeviceArgument& a) { return staged + (values(a) - begin); };
  const bool few = static_cast<int>(arguments.size()) < base::num_threads();
  std::vector<std::function<void()>> pieces;
  for (const DeviceArgument& a : arguments) {
    if (!plan_.tensor(a.tensor).rounded) {
      for (std::int64_t from = 0; from < bytes(a); from += slice)
        pieces.emplace_back([&, from] {
          const auto* source = static_cast<const std::uint8_t*>(a.source.data) + from;
          std::memcpy(place(a) + from, source, static_cast<std::size_t>(std::min(slice, bytes(a) - from)));
        });
    } else if (few && a.source.size > ops::rounding_chunk) {
      round_argument(a, scale, place(a));
    } else {
      pieces.emplace_back([&] { round_argument(a, scale, place(a)); });
    }
  }
  base::parallel_for(static_cast<std::int64_t>(pieces.size()),
                     [&](std::int64_t i) { pieces[static_cast<std::size_t>(i)](); });
  copy(at<void>(begin), staged, end - begin);
}

void DeviceRun::send_tables() {
  std::uint8_t* tables = stage(plan_.tables_end - plan_.tables_begin);
  const auto put = [&](std::int64_t offset, const auto& value, std::int64_t index = 0) {
    const auto bytes = static_cast<std::int64_t>(sizeof value);
    std::memcpy(tables + (offset - plan_.tables_begin + index * bytes), &value, sizeof value);
  };
  formats::visit(plan_.storage, [&](auto f) {
    const auto one = formats::encode<decltype(f)>(1.0, {}, 0).bits;
    for (std::int64_t i = 0; i < batch_; ++i) put(plan_.ones, one, i);
  });
  if (plan_.measured) {
    for (const DevicePass* pass : {&plan_.forward, &plan_.backward}) {
      std::int64_t nth = 0;
      for (std::int64_t i = pass->begin; i < pass->end; ++i) {
        const DeviceTensor& t = plan_.tensor(i);
        if (t.by_pattern) {
          put(t.partials, std::numeric_limits<std::int64_t>::max());
        } else {
          put(pass->descriptors, executor::StatisticsArgs{t.size, plan_.storage, at<void>(t.values)}, nth++);
        }
      }
      for (std::size_t c = 0; c < pass->first_chunk.size(); ++c)
        put(pass->first_chunks, pass->first_chunk[c], static_cast<std::int64_t>(c));
    }
  }
  copy(at<void>(plan_.tables_begin), tables, plan_.tables_end - plan_.tables_begin);
}

void DeviceRun::prepare() {
  base::expects(!memory_, "probe: forward a second time");
  const std::string doing = "probe: allocate " + std::to_string(plan_.bytes) + " bytes";
  void* memory = nullptr;
  check(table_.allocate(&memory, plan_.bytes, stream_), doing.c_str());
  memory_ = static_cast<std::uint8_t*>(memory);
  if (plan_.cleared) check(table_.clear(memory_, plan_.cleared, stream_), "probe: clear");
  send_tables();
  for (const DeviceTensor& t : plan_.tensors) records_.push_back({t.layer, t.role});
}

// Results, where rounding their values does anything.
void DeviceRun::round(std::initializer_list<std::int64_t> tensors, FormatId wide) const {
  std::array<executor::ConvertArgs, most_at_once> list;
  std::size_t count = 0;
  for (const std::int64_t tensor : tensors) {
    if (tensor < 0 || !plan_.tensor(tensor).rounded) continue;
    const DeviceTensor& t = plan_.tensor(tensor);
    list[count++] = {t.size,
                     wide,
                     plan_.storage,
                     at<void>(t.wide),
                     at<void>(t.values),
                     1,
                     arithmetic_.mode,
                     static_cast<std::uint64_t>(tensor),
                     plan_.measured ? at<ops::RoundingCounts>(t.counts) : nullptr};
  }
  check(table_.convert(list.data(), static_cast<int>(count), stream_), "probe: convert");
}

void DeviceRun::multiply(std::initializer_list<Product> products) const {
  std::array<executor::ProductArgs, most_at_once> list;
  std::size_t count = 0;
  for (const auto& [tensor, args] : products) {
    if (tensor < 0) continue;
    const DeviceTensor& t = plan_.tensor(tensor);
    list[count++] = completed(args, arithmetic_, t.role, wide_of(t));
  }
  check(table_.products(list.data(), static_cast<int>(count), stream_), "probe: product");
}

void DeviceRun::forward_layer(std::int64_t l) const {
  const Layer& layer = layers_[static_cast<std::size_t>(l - 1)];
  const DeviceLayer& d = plan_.layers[static_cast<std::size_t>(l - 1)];
  const std::int64_t x = l == 1 ? 0 : plan_.layers[static_cast<std::size_t>(l - 2)].h;
  executor::ProductArgs dense =
      product(batch_, layer.n_out, layer.n_in, operand(x, layer.n_in, 1), operand(d.weight, 1, layer.n_in));
  dense.bias = d.bias >= 0 ? at<void>(plan_.tensor(d.bias).values) : nullptr;
  multiply({{d.z, dense}});
  round({d.z}, executor::wide_format(arithmetic_.accumulate));
  const DeviceTensor& h = plan_.tensor(d.h);
  if (h.size == 0) return;
  const executor::ActivationArgs args =
      activation_args(arithmetic_, layer.activation, h.size, at<void>(plan_.tensor(d.z).values), wide_of(h));
  check(table_.activation_forward(&args, stream_), "probe: activation");
  round({d.h}, executor::wide_format(plan_.storage));
}

void DeviceRun::backward_layer(std::int64_t l, std::int64_t gradient) const {
  const Layer& layer = layers_[static_cast<std::size_t>(l - 1)];
  const DeviceLayer& d = plan_.layers[static_cast<std::size_t>(l - 1)];
  const std::int64_t x = l == 1 ? 0 : plan_.layers[static_cast<std::size_t>(l - 2)].h;
  const std::int64_t n_in = layer.n_in, n_out = layer.n_out;
  const DeviceTensor& dz = plan_.tensor(d.dz);
  if (dz.size) {
    executor::ActivationArgs args =
        activation_args(arithmetic_, layer.activation, dz.size, at<void>(plan_.tensor(d.z).values), wide_of(dz));
    args.grad_output = at<void>(plan_.tensor(gradient).values);
    args.output = arithmetic_.stored_output_derivative ? at<void>(plan_.tensor(d.h).values) : nullptr;
    check(table_.activation_backward(&args, stream_), "probe: activation");
    round({d.dz}, executor::wide_format(plan_.storage));
  }
  const executor::Operand ones{plan_.storage, at<void>(plan_.ones), batch_, 1};
  multiply({{d.dw, product(n_out, n_in, batch_, operand(d.dz, 1, n_out), operand(x, n_in, 1))},
            {d.dh, product(batch_, n_in, n_out, operand(d.dz, n_out, 1), operand(d.weight, n_in, 1))},
            {d.db, product(1, n_out, batch_, ones, operand(d.dz, n_out, 1))}});
  round({d.dw, d.dh, d.db}, executor::wide_format(arithmetic_.accumulate));
}

void DeviceRun::measure(const DevicePass& pass) const {
  const executor::StatisticsList list{{at<const std::int64_t>(pass.first_chunks),
                                       static_cast<std::int64_t>(pass.first_chunk.size()) - 1, pass.first_chunk.back()},
                                      plan_.storage,
                                      at<const executor::StatisticsArgs>(pass.descriptors),
                                      at<executor::StatisticsChunk>(pass.partials),
                                      at<std::int64_t>(pass.cells)};
  if (list.where.chunks) check(table_.statistics(&list, stream_), "probe: statistics");
  for (std::int64_t i = pass.begin; i < pass.end; ++i) {
    const DeviceTensor& t = plan_.tensor(i);
    if (!t.by_pattern) continue;
    const executor::StatisticsArgs args{t.size, plan_.storage, at<void>(t.values)};
    check(table_.count_patterns(&args, at<std::int64_t>(t.cells), at<std::int64_t>(t.partials), stream_),
          "probe: statistics");
  }
}

void DeviceRun::forward(const Poll& poll) {
  check_units();
  prepare();
  const auto depth = static_cast<std::int64_t>(layers_.size());
  auto part = plan_.parts.begin();
  for (std::int64_t l = 1; l <= depth; ++l) {
    poll(l - 1, 2 * depth);
    for (; part != plan_.parts.end() && part->layer <= l; ++part) send(plan_.arguments_of(*part), 1);
    forward_layer(l);
  }
  if (plan_.measured) measure(plan_.forward);
}

void DeviceRun::backward(Values gradient, Reference, const Poll& poll) {
  base::expects(memory_, "probe: backward before forward");
  const auto depth = static_cast<std::int64_t>(layers_.size()), size = static_cast<std::int64_t>(gradient.size());
  base::expects(size == batch_ * layers_.back().n_out, "probe: grad_output does not fit the output");
  std::int64_t dh = plan_.backward.begin;
  const DeviceArgument given{dh, {FormatId::float64, gradient.data(), size}};
  send({&given, 1}, loss_scale_);
  for (std::int64_t l = depth; l >= 1; --l) {
    poll(2 * depth - l, 2 * depth);
    backward_layer(l, dh);
    dh = plan_.layers[static_cast<std::size_t>(l - 1)].dh;
  }
  if (plan_.measured) measure(plan_.backward);
  collect();
  poll(2 * depth, 2 * depth);
}

Values DeviceRun::output() const {
  base::expects(memory_, "probe: output before forward");
  const DeviceTensor& h = plan_.tensor(plan_.layers.back().h);
  const std::int64_t bytes = h.size * container_bytes(plan_.storage);
  const executor::Pinned stored(table_, bytes);
  copy(stored.data(), at<void>(h.values), bytes);
  check(table_.synchronize(stream_), "probe: forward");
  return decode_all(executor::host(), {plan_.storage, stored.data(), h.size});
}

const Reference& DeviceRun::reference_output() const { throw std::invalid_argument("probe: there is no reference"); }

void DeviceRun::collect() {
  const executor::Pinned results(table_, plan_.fetched);
  copy(results.data(), memory_, plan_.fetched);
  wait("probe: backward");
  if (!plan_.measured) return;
  base::parallel_for(static_cast<std::int64_t>(records_.size()), [&](std::int64_t i) {
    thread_local const auto scratch = ops::make_statistics();
    complete(records_[static_cast<std::size_t>(i)], plan_.tensor(i), results.as<std::uint8_t>(), *scratch);
  });
}

void DeviceRun::complete(Record& record, const DeviceTensor& t, const std::uint8_t* results,
                         ops::Statistics& scratch) const {
  const auto* cells = reinterpret_cast<const std::int64_t*>(results + t.cells);
  const std::uint8_t* partials = results + t.partials;
  formats::visit(plan_.storage, [&](auto f) {
    using F = decltype(f);
    if (t.by_pattern) {
      executor::gather_patterns<F>(cells, *reinterpret_cast<const std::int64_t*>(partials), scratch);
    } else {
      const std::int64_t chunks = base::chunk_count(t.size, ops::statistics_chunk);
      executor::gather_chunks<F>(reinterpret_cast<const executor::StatisticsChunk*>(partials), chunks, cells, t.size,
                                 scratch);
    }
  });
  record.stored = trimmed(scratch);
  if (!t.rounded) {
    record.rounding = unchanged(record.stored);
  } else if (!t.given) {
    const auto* counts = reinterpret_cast<const ops::RoundingCounts*>(results + t.counts);
    for (std::int64_t c = 0; c < base::chunk_count(t.size, ops::rounding_chunk); ++c) record.rounding.merge(counts[c]);
  }
}

}  // namespace gradkern::chain
