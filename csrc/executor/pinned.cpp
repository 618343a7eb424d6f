#include "executor/pinned.hpp"

#include <algorithm>
#include <mutex>
#include <vector>

namespace gradkern::executor {
namespace {

struct Block {
  const DeviceTable* table;
  void* data;
  std::int64_t bytes;
};

constexpr std::int64_t least_bytes = 1 << 16, most_kept = std::int64_t(256) << 20;

// What was given back. Never destroyed: the driver may be gone when the process ends.
struct Kept {
  std::mutex mutex;
  std::vector<Block> blocks;
  std::int64_t bytes = 0;
};
Kept& kept() {
  static auto* all = new Kept;
  return *all;
}

void* taken(const DeviceTable& table, std::int64_t bytes) {
  Kept& all = kept();
  const std::lock_guard lock(all.mutex);
  const auto found = std::find_if(all.blocks.begin(), all.blocks.end(),
                                  [&](const Block& b) { return b.table == &table && b.bytes == bytes; });
  if (found == all.blocks.end()) return nullptr;
  void* data = found->data;
  all.bytes -= bytes;
  all.blocks.erase(found);
  return data;
}

}  // namespace

Pinned::Pinned(const DeviceTable& table, std::int64_t bytes) : table_(&table), data_(nullptr), bytes_(least_bytes) {
  while (bytes_ < bytes) bytes_ *= 2;
  data_ = taken(table, bytes_);
  if (!data_) check(table, table.allocate_host(&data_, bytes_), "allocate page-locked memory");
}

Pinned::~Pinned() {
  if (!data_) return;
  Kept& all = kept();
  const std::lock_guard lock(all.mutex);
  if (all.bytes + bytes_ > most_kept) {
    table_->release_host(data_);
  } else {
    all.blocks.push_back({table_, data_, bytes_});
    all.bytes += bytes_;
  }
}

}  // namespace gradkern::executor
