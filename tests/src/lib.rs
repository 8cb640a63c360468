// SPDX-License-Identifier: MIT OR Apache-2.0
//! Harness of the black-box suites.
