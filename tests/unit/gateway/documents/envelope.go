// Reads documents as an MCP server in Go does, into the fields that MCP defines, and prints them.
package main

import (
	"encoding/json"
	"os"
)

type message struct {
	Method string
	Params struct {
		Meta map[string]any `json:"_meta"`
		Name string
		URI  string
		Ref  struct{ Name string }
		Task any

		Notifications struct{ ResourceSubscriptions []string }
	}
}

func main() {
	var documents [][]byte
	if err := json.NewDecoder(os.Stdin).Decode(&documents); err != nil {
		panic(err)
	}
	read := make([]any, len(documents))
	for i, document := range documents {
		var each message
		if err := json.Unmarshal(document, &each); err != nil {
			read[i] = "error"
		} else {
			read[i] = each
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(read); err != nil {
		panic(err)
	}
}
