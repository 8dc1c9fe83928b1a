// SPDX-License-Identifier: Apache-2.0

package lab

import "slices"

// appFaults are those of a program that accepts the connection.
func appFaults() []Fault {
	app := func(name, cause, summary, certainty string, what Listen, args ...string) []Fault {
		return both(func(f int) Fault {
			what := what
			what.Comm = "clerk"
			return Fault{Name: name, Cause: cause, Summary: summary, Setup: serving(f, what), Args: args,
				Want: Want{Certainty: certainty, Direction: reply, Role: Server, Comm: "clerk"}}
		})
	}
	return slices.Concat(
		app("app-resets-asked", "reset-by-app", "the service resets where an answer is awaited", observed, Listen{Behaviour: ResetAtOnce}, "--expect", "."),
		app("app-closes", "closed-by-app", "the service accepts and closes", observed, Listen{Behaviour: CloseAtOnce}),
		app("app-closes-soon", "closed-by-app", "the service accepts, computes, and closes", observed, Listen{Behaviour: CloseSoon}),
		app("app-closes-asked", "closed-by-app", "the service closes where an answer is awaited", observed, Listen{Behaviour: CloseAtOnce}, "--send", "hello", "--expect", "."),
		app("app-closes-after", "closed-by-app", "the service reads, says nothing and closes", observed, Listen{Behaviour: CloseAfter}, "--send", "hello"),
		app("app-silent", "app-silent", "the service says nothing", observed, Listen{}, "-w", "700ms", "--expect", "."),
		app("app-error", "app-error", "the service answers with an error", observed, Listen{Banner: "421 too many connections\r\n"}, "-w", "700ms", "--expect", "^220"),
		app("app-error-closes", "app-error", "the service answers with an error and closes", observed, Listen{Banner: "HTTP/1.1 503 Service Unavailable\r\n\r\n", Behaviour: CloseAfter},
			"--send", "GET / HTTP/1.0\r\n\r\n", "--expect", "^HTTP/1.. 200"),
	)
}
