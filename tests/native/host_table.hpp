// A device table that is none: its kernels are the CPU's, chunk by chunk on the host's memory. It refuses pointers that are
// not its own, and can do nothing of what it is given, copies included, until somebody waits, as a GPU might.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "cpu/kernels.hpp"
#include "cuda/runtime.hpp"
#include "executor/device.hpp"
#include "tensors.hpp"

namespace gradkern::test::host_table {

using executor::Stream;

inline std::int64_t launches = 0;
inline bool waits = false;  // with everything
inline std::vector<std::function<void()>> waiting;

inline const executor::Executor& cpu_executor() { return executor::candidates().front().executor; }
inline const cpu::Kernels& kernels() { return cpu::kernels_base; }

inline void check_device(const void* pointer) {
  int device = -1;
  cuda::device_of(pointer, &device);
  CHECK(device == 0, "a kernel was given a pointer to the host");
}

template <class Work>
int enqueue(Work work) {
  if (waits) {
    waiting.emplace_back(work);
  } else {
    work();
  }
  return 0;
}

template <class Work>
int launch(Work work) {
  ++launches;
  return enqueue(work);
}

inline int synchronize(Stream stream) {
  for (const auto& work : waiting) work();
  waiting.clear();
  return cuda::synchronize(stream);
}
inline int copy(void* to, const void* from, std::int64_t bytes, Stream stream) {
  return enqueue([=] { cuda::copy(to, from, bytes, stream); });
}
inline int clear(void* pointer, std::int64_t bytes, Stream stream) {
  return enqueue([=] { cuda::clear(pointer, bytes, stream); });
}
inline int release(void* pointer, Stream stream) {
  return enqueue([=] { cuda::release(pointer, stream); });
}
inline int stream_destroy(Stream stream) { return synchronize(stream); }

template <class Body>
void for_chunks(std::int64_t size, std::int64_t chunk, Body body) {
  for (std::int64_t c = 0; c < base::chunk_count(size, chunk); ++c) body(c, c * chunk, std::min(size, (c + 1) * chunk));
}

// A list counts as one launch; an empty one is none.
inline int convert(const executor::ConvertArgs* list, int count, Stream) {
  const std::vector<executor::ConvertArgs> all(list, list + count);
  for (const executor::ConvertArgs& a : all) {
    check_device(a.source);
    check_device(a.stored);
    if (a.counts) check_device(a.counts);
  }
  if (all.empty()) return 0;
  return launch([all] {
    for (const executor::ConvertArgs& a : all) {
      for_chunks(a.size, ops::rounding_chunk, [&](std::int64_t c, std::int64_t begin, std::int64_t end) {
        ops::RoundingCounts counts;
        kernels().convert(a, begin, end, counts);
        if (a.counts) a.counts[c] = counts;
      });
    }
  });
}

inline int products(const executor::ProductArgs* list, int count, Stream) {
  const std::vector<executor::ProductArgs> all(list, list + count);
  for (const executor::ProductArgs& a : all) {
    check_device(a.a.data);
    check_device(a.b.data);
    check_device(a.wide);
    if (a.bias) check_device(a.bias);
  }
  return launch([all] { cpu_executor().products(cpu_executor(), all.data(), static_cast<std::int64_t>(all.size())); });
}

inline int activation(const executor::ActivationArgs* args,
                      void (*function)(const executor::Executor&, const executor::ActivationArgs&)) {
  check_device(args->pre_activation);
  check_device(args->wide);
  if (args->grad_output) check_device(args->grad_output);
  if (args->output) check_device(args->output);
  return launch([a = *args, function] { function(cpu_executor(), a); });
}
inline int activation_forward(const executor::ActivationArgs* args, Stream) {
  return activation(args, cpu_executor().activation_forward);
}
inline int activation_backward(const executor::ActivationArgs* args, Stream) {
  return activation(args, cpu_executor().activation_backward);
}

inline void measure_list(const executor::StatisticsList& list) {
  const auto s = ops::make_statistics();
  for (std::int64_t i = 0; i < list.where.count; ++i) {
    const executor::StatisticsArgs& tensor = list.tensors[i];
    check_device(tensor.data);
    for_chunks(tensor.size, ops::statistics_chunk, [&](std::int64_t c, std::int64_t begin, std::int64_t end) {
      s->reset();
      ops::Moments moments;
      kernels().measure(tensor, begin, end, ops::statistics_chunk, *s, &moments);
      const executor::StatisticsChunk chunk{s->nan,  s->pos_inf, s->neg_inf, s->zero, s->negative, s->first_nonfinite,
                                            s->amax, s->amin,    moments};
      list.partials[list.where.first_chunk[i] + c] = chunk;
      formats::visit(list.format, [&](auto f) {
        using Range = executor::BinadeRange<decltype(f)>;
        for (int b = s->binades.first; b < s->binades.last; ++b)
          for (int cell = 0; cell < ops::cell_count; ++cell)
            list.cells[i * Range::cells + (b - Range::first) * ops::cell_count + cell] += s->binades.row(b)[cell];
      });
    });
  }
}

inline int statistics(const executor::StatisticsList* list, Stream) {
  for (const void* p : {static_cast<const void*>(list->where.first_chunk), static_cast<const void*>(list->tensors),
                        static_cast<const void*>(list->partials), static_cast<const void*>(list->cells)})
    check_device(p);
  return launch([l = *list] { measure_list(l); });
}

inline int count_patterns(const executor::StatisticsArgs* args, std::int64_t* counts, std::int64_t* first, Stream) {
  check_device(args->data);
  check_device(counts);
  check_device(first);
  return launch([=, a = *args] {
    formats::visit(a.format, [&](auto f) {
      using F = decltype(f);
      const auto* x = static_cast<const typename F::container*>(a.data);
      for (std::int64_t i = 0; i < a.size; ++i) {
        if constexpr (ops::counts_patterns<F>) ++counts[x[i]];
        if (!(std::fabs(formats::decode<F>(x[i])) < INFINITY)) *first = std::min(*first, i);
      }
    });
  });
}

inline const char* error_text(int) { return "an error of the test's device"; }

inline executor::DeviceTable table() {
  executor::DeviceTable t{};
  t.version = executor::device_table_version;
  t.name = "test";
  t.matrix_unit = cuda::matrix_unit;
  t.error_text = error_text;
  t.device_of = cuda::device_of;
  t.allocate = cuda::allocate;
  t.release = release;
  t.allocate_host = cuda::allocate_host;
  t.release_host = cuda::release_host;
  t.copy = copy;
  t.clear = clear;
  t.synchronize = synchronize;
  t.stream_create = cuda::stream_create;
  t.stream_destroy = stream_destroy;
  t.convert = convert;
  t.products = products;
  t.activation_forward = activation_forward;
  t.activation_backward = activation_backward;
  t.statistics = statistics;
  t.count_patterns = count_patterns;
  return t;
}

}  // namespace gradkern::test::host_table
