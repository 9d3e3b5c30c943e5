//! Other hosts, over libfabric: EFA where there is one, TCP where not.

mod sys;
