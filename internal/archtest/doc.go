// Package archtest holds what the design promises about the code itself: which
// package may import which (table_test.go), who may end the process, how long a
// file or a function may grow, that everything is formatted. It has only tests,
// and each failure says which promise broke and why it was made.
//
// golangci-lint checks some of the same in an editor; these tests need only go.
package archtest
