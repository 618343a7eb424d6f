// Which executors this process can use. The CPU's registers itself once per instruction set.
#pragma once

#include <string>
#include <vector>

#include "executor/kernels.hpp"

namespace gradkern::executor {

// All that were built in, usable or not, from the narrowest.
struct Candidate {
  Executor executor;
  bool usable;
  const char* why_not;
};

void register_candidates(std::vector<Candidate> candidates);
const std::vector<Candidate>& candidates();

// The CPU's executor in use: GRADKERN_ISA if set, else the widest usable. Throws base::UnsupportedIsa for one that is
// absent.
const Executor& host();
void select(const std::string& name);

// The device that the calling thread computes on from now on, or null for the CPU.
void use(const Executor* device);
const Executor* used_device();

// The calling thread's device, else the CPU.
const Executor& current();

}  // namespace gradkern::executor
