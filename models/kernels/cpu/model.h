// A network ready to score, with the workspaces of the calls that are under way.

#pragma once

#include <memory>
#include <mutex>

#include "instruction_set.h"
#include "packing.h"
#include "workspace.h"

class Model {
  public:
    Model(const InstructionSet& set, Packing packing)
        : set(set), network(packing.network()), memory_(std::move(packing).memory()) {}

    const InstructionSet& set;
    const Network network;

    // Fills probabilities (batch, classes) and, unless null, features (batch, pooled) from signal (batch, samples, LEADS) and
    // metadata (batch, METADATA). Samples left over after the last whole patch are not seen. Throws std::bad_alloc.
    void score(const float* signal, const float* metadata, float* probabilities, float* features, size_t batch,
               size_t samples) {
        const size_t steps = samples * LEADS / network.d.inputs;
        auto workspace = acquire(steps);
        for (size_t i = 0; i < batch; i++)
            set.score(network, *workspace, signal + i * samples * LEADS, metadata + i * METADATA, steps,
                      probabilities + i * network.d.classes, features ? features + i * network.d.pooled() : nullptr);
        release(std::move(workspace));
    }

  private:
    const std::vector<Floats> memory_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Workspace>> idle_;

    // Workspaces are kept between calls; each concurrent call has its own.
    std::unique_ptr<Workspace> acquire(size_t steps) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            for (auto& candidate : idle_)
                if (candidate->capacity >= steps) {
                    std::unique_ptr<Workspace> found = std::move(candidate);
                    candidate = std::move(idle_.back());
                    idle_.pop_back();
                    return found;
                }
            idle_.clear();
        }
        return std::make_unique<Workspace>(network.d, steps);
    }
    void release(std::unique_ptr<Workspace> workspace) {
        std::lock_guard<std::mutex> lock(mutex_);
        idle_.push_back(std::move(workspace));
    }
};
