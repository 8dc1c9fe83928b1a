// SPDX-License-Identifier: Apache-2.0

package evidence

// Counterfactual is a second probe, sent while a change that the verdict
// proposes was in force. The change was taken back before anything else was done.
type Counterfactual struct {
	Fix      int      `json:"fix"`  // which of the verdict's fixes, from 0
	What     string   `json:"what"` // its summary
	Commands []string `json:"commands"`
	Undo     []string `json:"undo"`
	// Untried: why nothing was changed, or why what was seen with the change counts for nothing. The rest is then empty.
	Untried string `json:"untried,omitempty"`

	Probe     *Probe `json:"probe,omitempty"`
	Cause     string `json:"cause,omitempty"` // of the verdict about that probe, as are the next two
	Certainty string `json:"certainty,omitempty"`
	Summary   string `json:"summary,omitempty"`
	// Again is the cause that a third probe came to, sent when the change had been taken
	// back: a fault that passes by itself does not come back. Empty: none was sent.
	Again string `json:"again,omitempty"`

	// Restored: afterwards the namespace's configuration was that of before, but for counters and handles.
	Restored bool     `json:"restored"`
	Differs  []string `json:"differs,omitempty"` // lines that came (+) or went (-) meanwhile
}
