#!/bin/sh
# Puts a checkpoint folder of two ranks into a service and gets the model back, with curl alone.
# Usage: curl-checkpoint.sh FOLDER http://HOST:PORT RUN OUT.safetensors
set -eu
folder=$1 service=$2 run=$service/v1/runs/$3 out=$4
name=$(basename "$folder")

# Fails on every refusal. With --oauth2-bearer "$FSDP_TOKEN" where the service wants a token.
http() { curl --silent --show-error --fail "$@"; }

# 1. Begin. The answer's Location is the save.
save=$service$(http -d "{\"name\":\"$name\"}" -H 'Content-Type: application/json' -w '%header{location}' -o /dev/null "$run/saves")

# 2. A shard in one piece: create the upload, then append all of it.
create() { http -X POST -H 'Upload-Complete: ?0' -w '%header{location}' -o /dev/null "$save/uploads?file=$1"; }
append() { # UPLOAD OFFSET; the bytes come from standard input
  http -X PATCH -H 'Content-Type: application/partial-upload' -H "Upload-Offset: $2" -H 'Upload-Complete: ?1' \
    --data-binary @- "$service$1"
}
for file in rank-00000.safetensors manifest.msgpack; do
  append "$(create "$file")" 0 <"$folder/$file"
done

# 3. A shard in two pieces. The line breaks after a second; what arrived stays.
file=rank-00001.safetensors
upload=$(create "$file")
http -X PATCH -H 'Content-Type: application/partial-upload' -H 'Upload-Offset: 0' -H 'Upload-Complete: ?1' \
  --limit-rate 100k --max-time 1 --data-binary "@$folder/$file" "$service$upload" || echo "cut off, as it should be"
offset=$(http --head -w '%header{upload-offset}' -o /dev/null "$service$upload")
echo "$offset bytes had arrived"
tail -c "+$((offset + 1))" "$folder/$file" | append "$upload" "$offset"

# 4. Commit, once every byte is proven; then it is listed.
http -X POST -o /dev/null "$save/commit"
http "$run/checkpoints?names=only"

# 5. The model in one safetensors file, made while it is sent.
http -o "$out" "$run/checkpoints/$name/export.safetensors"
