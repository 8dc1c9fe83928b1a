// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// patience is how long a person waits without wondering.
const patience = 500 * time.Millisecond

// slowly says on w what is being done if it takes longer than half a second. The
// function it returns ends that; after it nothing more is written.
func slowly(w io.Writer, what string) (done func()) {
	var mu sync.Mutex
	over := false
	t := time.AfterFunc(patience, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			fmt.Fprintf(w, "pathtrace: %s …\n", what)
		}
	})
	return func() {
		t.Stop()
		mu.Lock()
		over = true
		mu.Unlock()
	}
}
