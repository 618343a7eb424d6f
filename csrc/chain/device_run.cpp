#include "chain/device_run.hpp"

#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "executor/device_statistics.hpp"
#include "executor/registry.hpp"

namespace gradkern::chain {
namespace {

// What a stream is given while this lives becomes one graph, where the device can capture it.
class Capture {
 public:
  Capture(const executor::DeviceTable& table, executor::Stream stream)
      : table_(table), stream_(stream), open_(table.graph_begin(stream) == 0) {}
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    if (open_) table_.graph_end(stream_, &graph_);
    if (graph_) table_.graph_destroy(graph_);
  }

  bool open() const { return open_; }
  void launch() {
    if (!open_) return;
    open_ = false;
    executor::check(table_, table_.graph_end(stream_, &graph_), "probe: capture");
    executor::check(table_, table_.graph_launch(graph_, stream_), "probe: launch");
  }

 private:
  const executor::DeviceTable& table_;
  executor::Stream stream_;
  bool open_;
  void* graph_ = nullptr;
};

}  // namespace

DeviceRun::DeviceRun(const Executor& device, Arithmetic arithmetic, std::vector<Layer> layers, Source input,
                     std::int64_t batch, double loss_scale, bool measured)
    : table_(*device.device),
      arithmetic_(arithmetic),
      layers_((check_shapes(layers, input, batch), std::move(layers))),
      input_(input),
      batch_(batch),
      loss_scale_(loss_scale),
      plan_(arithmetic, layers_, input, batch, loss_scale, measured) {
  check(table_.stream_create(&stream_), "probe: stream");
}

DeviceRun::~DeviceRun() {
  if (memory_) table_.release(memory_, stream_);
  table_.stream_destroy(stream_);
}

void DeviceRun::copy(void* to, const void* from, std::int64_t bytes) const {
  if (bytes) check(table_.copy(to, from, bytes, stream_), "probe: copy");
}

executor::Operand DeviceRun::operand(std::int64_t tensor, std::int64_t row_stride, std::int64_t column_stride) const {
  return {plan_.storage, at<void>(plan_.tensor(tensor).values), row_stride, column_stride};
}

// An argument, to where it is rounded from, or to its place at once.
void DeviceRun::upload(std::int64_t tensor, const Source& source) const {
  const DeviceTensor& t = plan_.tensor(tensor);
  copy(at<void>(t.rounded ? t.source : t.values), source.data, source.size * container_bytes(source.format));
}

void DeviceRun::upload_tables() {
  tables_.resize(static_cast<std::size_t>(plan_.tables_end - plan_.tables_begin));
  const auto put = [&](std::int64_t offset, const auto& value, std::int64_t index = 0) {
    const auto bytes = static_cast<std::int64_t>(sizeof value);
    std::memcpy(tables_.data() + (offset - plan_.tables_begin + index * bytes), &value, sizeof value);
  };
  for (std::int64_t i = 0; i < batch_; ++i) put(plan_.ones, 1.0f, i);
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
  copy(at<void>(plan_.tables_begin), tables_.data(), plan_.tables_end - plan_.tables_begin);
}

void DeviceRun::prepare() {
  base::expects(!memory_, "probe: forward a second time");
  const std::string doing = "probe: allocate " + std::to_string(plan_.bytes) + " bytes";
  void* memory = nullptr;
  check(table_.allocate(&memory, plan_.bytes, stream_), doing.c_str());
  memory_ = static_cast<std::uint8_t*>(memory);
  if (plan_.cleared) check(table_.clear(memory_, plan_.cleared, stream_), "probe: clear");
  upload_tables();
  upload(plan_.forward.begin, input_);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    upload(plan_.layers[l].weight, layers_[l].weight);
    if (layers_[l].bias.data) upload(plan_.layers[l].bias, layers_[l].bias);
  }
}

// The tensor that a direction starts from, step(i) for each layer on its way, and the statistics of all.
template <class Step>
void DeviceRun::enqueue(const DevicePass& pass, FormatId given, double scale, const Poll& poll, Step step) const {
  const auto depth = static_cast<std::int64_t>(layers_.size());
  const std::int64_t done = pass.begin == 0 ? 0 : depth;
  Capture capture(table_, stream_);
  if (capture.open()) poll(done, 2 * depth);  // a graph stops nowhere in between
  round(pass.begin, given, plan_.tensor(pass.begin).source, scale);
  for (std::int64_t i = 0; i < depth; ++i) {
    if (!capture.open()) poll(done + i, 2 * depth);
    step(i);
  }
  if (plan_.measured) measure(pass);
  capture.launch();
}

// tensor = fl(source * scale), where rounding does anything. The records' order numbers the tensors.
void DeviceRun::round(std::int64_t tensor, FormatId format, std::int64_t source, double scale) const {
  const DeviceTensor& t = plan_.tensor(tensor);
  if (!t.rounded || t.size == 0) return;
  const executor::ConvertArgs args{t.size,
                                   format,
                                   plan_.storage,
                                   at<void>(source),
                                   at<void>(t.values),
                                   scale,
                                   arithmetic_.mode,
                                   static_cast<std::uint64_t>(tensor),
                                   plan_.measured ? at<ops::RoundingCounts>(t.counts) : nullptr};
  check(table_.convert(&args, stream_), "probe: convert");
}

void DeviceRun::multiply(std::int64_t tensor, const executor::ProductArgs& shape) const {
  const DeviceTensor& t = plan_.tensor(tensor);
  if (t.size == 0) return;
  const executor::ProductArgs args = completed(shape, arithmetic_, t.role, wide_of(t));
  executor::check_unit(table_, args);
  check(table_.product(&args, stream_), "probe: product");
  round(tensor, executor::wide_format(arithmetic_.accumulate), plan_.wide, 1);
}

void DeviceRun::forward_layer(std::int64_t l) const {
  const Layer& layer = layers_[static_cast<std::size_t>(l - 1)];
  const DeviceLayer& d = plan_.layers[static_cast<std::size_t>(l - 1)];
  const std::int64_t x = l == 1 ? 0 : plan_.layers[static_cast<std::size_t>(l - 2)].h;
  round(d.weight, layer.weight.format, plan_.tensor(d.weight).source, 1);
  if (d.bias >= 0) round(d.bias, layer.bias.format, plan_.tensor(d.bias).source, 1);
  executor::ProductArgs dense =
      product(batch_, layer.n_out, layer.n_in, operand(x, layer.n_in, 1), operand(d.weight, 1, layer.n_in));
  dense.bias = d.bias >= 0 ? at<void>(plan_.tensor(d.bias).values) : nullptr;
  multiply(d.z, dense);
  const DeviceTensor& h = plan_.tensor(d.h);
  if (h.size == 0) return;
  const executor::ActivationArgs args =
      activation_args(arithmetic_, layer.activation, h.size, at<void>(plan_.tensor(d.z).values), wide_of(h));
  check(table_.activation_forward(&args, stream_), "probe: activation");
  round(d.h, executor::wide_format(plan_.storage), plan_.wide, 1);
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
    round(d.dz, executor::wide_format(plan_.storage), plan_.wide, 1);
  }
  multiply(d.dw, product(n_out, n_in, batch_, operand(d.dz, 1, n_out), operand(x, n_in, 1)));
  const executor::Operand ones{FormatId::float32, at<void>(plan_.ones), batch_, 1};
  if (d.db >= 0) multiply(d.db, product(1, n_out, batch_, ones, operand(d.dz, n_out, 1)));
  multiply(d.dh, product(batch_, n_in, n_out, operand(d.dz, n_out, 1), operand(d.weight, n_in, 1)));
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
  prepare();
  enqueue(plan_.forward, input_.format, 1, poll, [&](std::int64_t i) { forward_layer(i + 1); });
}

void DeviceRun::backward(std::vector<double> gradient, Reference, const Poll& poll) {
  base::expects(memory_, "probe: backward before forward");
  const auto depth = static_cast<std::int64_t>(layers_.size()), size = static_cast<std::int64_t>(gradient.size());
  base::expects(size == batch_ * layers_.back().n_out, "probe: grad_output does not fit the output");
  upload(plan_.backward.begin, {FormatId::float64, gradient.data(), size});
  std::int64_t dh = plan_.backward.begin;
  enqueue(plan_.backward, FormatId::float64, loss_scale_, poll, [&](std::int64_t i) {
    backward_layer(depth - i, dh);
    dh = plan_.layers[static_cast<std::size_t>(depth - i - 1)].dh;
  });
  collect();
  poll(2 * depth, 2 * depth);
}

std::vector<double> DeviceRun::output() const {
  base::expects(memory_, "probe: output before forward");
  const DeviceTensor& h = plan_.tensor(plan_.layers.back().h);
  base::Buffer stored;
  stored.resize(static_cast<std::size_t>(h.size * container_bytes(plan_.storage)));
  copy(stored.data(), at<void>(h.values), static_cast<std::int64_t>(stored.size()));
  check(table_.synchronize(stream_), "probe: forward");
  return decode_all(executor::host(), {plan_.storage, stored.data(), h.size});
}

const Reference& DeviceRun::reference_output() const { throw std::invalid_argument("probe: there is no reference"); }

void DeviceRun::collect() {
  base::Buffer results;
  results.resize(static_cast<std::size_t>(plan_.fetched));
  copy(results.data(), memory_, plan_.fetched);
  check(table_.synchronize(stream_), "probe: backward");
  records_.resize(plan_.tensors.size());
  base::parallel_for(static_cast<std::int64_t>(records_.size()), [&](std::int64_t i) {
    thread_local const auto scratch = ops::make_statistics();
    records_[static_cast<std::size_t>(i)] = record_of(plan_.tensor(i), results.data(), *scratch);
  });
}

Record DeviceRun::record_of(const DeviceTensor& t, const std::uint8_t* results, ops::Statistics& scratch) const {
  Record record{t.layer, t.role, {}, {}, {}, {}, 0, 0, {}, {}};
  if (!plan_.measured) return record;
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
  } else {
    const auto* counts = reinterpret_cast<const ops::RoundingCounts*>(results + t.counts);
    for (std::int64_t c = 0; c < base::chunk_count(t.size, ops::rounding_chunk); ++c) record.rounding.merge(counts[c]);
  }
  return record;
}

}  // namespace gradkern::chain
