// SPDX-License-Identifier: Apache-2.0

// Package report prints a case and its verdict, as text for people and as JSON
// for programs, and reads the JSON back. It decides nothing: what it prints was
// seen, read or judged elsewhere.
package report
