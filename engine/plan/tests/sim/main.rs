//! The planner in a simulated world: one module a story.
mod bound;
mod noise;
mod sim_faults;
mod sim_random;
mod sim_scenarios;
mod sim_spared;
mod world;
