// What a library of CUDA kernels exports: one table of C functions over device memory.
//
// libgradkern_cuda.so (nvcc) and libgradkern_simt.so (the same sources, run on the host) both export
// gradkern_device_table(). Every function returns 0, or an error that error_text puts in words. Kernels are enqueued on
// a stream and return at once; data pointers inside their arguments are device pointers, the argument structs are not.
// A kernel that sums leaves one partial result for each chunk of its tensor: the host merges them in index order, so
// that the order of blocks on a device leaves no trace, and nothing is waited for until somebody asks.
#pragma once

#include "executor/kernels.hpp"

namespace gradkern::executor {

using Stream = void*;  // a cudaStream_t

struct DeviceDescription {
  char name[256];
  int major, minor;  // compute capability; 0 where it is the host
  int multiprocessors;
  std::int64_t memory_bytes;
};

// Of one chunk of ops::statistics_chunk entries. The moments are those of its blocks, merged in index order.
struct StatisticsChunk {
  std::int64_t nan = 0, pos_inf = 0, neg_inf = 0, zero = 0, negative = 0, first_nonfinite = -1;
  double amax = 0, amin = __builtin_inf();
  ops::Moments moments;
};

// The binades of F: rows of ops::cell_count counters, from that of the smallest subnormal to that of the largest value.
template <class F>
struct BinadeRange {
  static constexpr int first = formats::Layout<F>::min_quantum;
  // One past the largest; e4m3fn has no binade of infinities.
  static constexpr int last = F::bias + (F::has_inf ? 1 : 2);
  static constexpr int cells = (last - first) * ops::cell_count;
};

// Many tensors of one format in one launch, all in device memory: chunk c belongs to the last tensor i with
// first_chunk[i] <= c; first_chunk has count + 1 entries.
struct TensorChunks {
  const std::int64_t* first_chunk;
  std::int64_t count, chunks;
};

struct StatisticsList {
  TensorChunks where;
  FormatId format;
  const StatisticsArgs* tensors;  // device
  StatisticsChunk* partials;      // device, one per chunk
  std::int64_t* cells;            // device, BinadeRange::cells per tensor, cleared
};

struct ClipList {
  TensorChunks where;
  FormatId format;
  const ClipTensor* tensors;  // device
};

// Raised with every change of what lies between the libraries and the module that opens them.
inline constexpr int device_table_version = 7;

struct DeviceTable {
  int version;
  const char* name;  // "cuda" or "simt"

  int (*device_count)(int* count);
  int (*describe)(int device, DeviceDescription*);
  int (*matrix_unit)(int* unit);  // of the current device: the mma::Unit behind its mma.sync
  const char* (*error_text)(int error);
  int (*set_device)(int device);  // of the calling thread
  int (*get_device)(int* device);
  int (*device_of)(const void* pointer, int* device);  // -1: the host's memory
  int (*allocate)(void** pointer, std::int64_t bytes, Stream);
  int (*release)(void* pointer, Stream);
  int (*allocate_host)(void** pointer, std::int64_t bytes);  // page-locked: executor/pinned.hpp
  int (*release_host)(void* pointer);
  int (*copy)(void* to, const void* from, std::int64_t bytes, Stream);  // any direction
  int (*clear)(void* pointer, std::int64_t bytes, Stream);
  int (*synchronize)(Stream);
  int (*stream_wait)(Stream later, Stream earlier);  // for what is enqueued on `earlier` by now; the host goes on
  int (*stream_create)(Stream*);
  int (*stream_destroy)(Stream);

  // counts: one RoundingCounts per ops::rounding_chunk entries, or null.
  // Of lists, those that are alike go together: a launch costs the host more than a small tensor takes a device. What one
  // makes, none of the others reads.
  int (*convert)(const ConvertArgs* list, int count, Stream);
  int (*products)(const ProductArgs* list, int count, Stream);
  int (*matvec)(const MatvecArgs*, Stream);
  int (*activation_forward)(const ActivationArgs*, Stream);
  int (*activation_backward)(const ActivationArgs*, Stream);
  int (*statistics)(const StatisticsList*, Stream);
  // How often each bit pattern of a format of 8 bits occurs, added to counts; and the first entry that is
  // not finite, by a minimum: first starts as the largest integer.
  int (*count_patterns)(const StatisticsArgs*, std::int64_t* counts, std::int64_t* first_nonfinite, Stream);
  int (*errors)(const ErrorArgs*, ErrorSums* partials, Stream);  // of chunks of ops::rounding_chunk
  // Chunks of ops::clip_chunk. Factors, bounds: one per tensor.
  int (*clip_survey)(const ClipList*, ops::Norm, ops::Survey* partials, Stream);
  int (*clip_scale)(const ClipList*, const ops::ClipFactor* factors, bool zero, ops::ClipCounts* partials, Stream);
  int (*clip_clamp)(const ClipList*, const ops::ClipBounds* bounds, bool zero, ops::ClipCounts* partials, Stream);
  int (*update)(const UpdateArgs*, Stream);  // counts: of chunks of ops::rounding_chunk, or null
  int (*elementary_f32)(int function, const float* x, float* y, std::int64_t size, Stream);
  int (*elementary_f64)(int function, const double* x, double* y, std::int64_t size, Stream);
};

// The executor over a device's table. It takes the host's pointers and the device's: what lies on the host is copied
// there and back, and then every call waits for its results.
Executor device_executor(const DeviceTable& table);

// The stream that the calling thread's device executor enqueues on; null is the default stream.
Stream current_stream();
void set_current_stream(Stream stream);

// Throws std::invalid_argument, naming the unit, the formats and the device, where the current device would not give the
// bits of the unit that a product asks for.
void check_unit(const DeviceTable& table, const ProductArgs& args);

// Throws DeviceError with the error's words, and with what was being done.
void check(const DeviceTable& table, int error, const char* doing);

}  // namespace gradkern::executor
