# Builds the daemon that goes wrong on purpose. Sourced; needs rust.sh.

# build_faulty PROFILE_FOLDER [--release]: leaves tmem-faulty and tmem in TARGET/PROFILE_FOLDER. Both builds share a target folder, where cargo keeps
# the parts of either; what they are linked to has one name, so the first is copied away.
build_faulty() {
    local folder
    folder=$(target_directory)/$1
    shift
    cargo build --quiet -p tmem --features fault-injection --locked "$@"
    cp "$folder/tmem" "$folder/tmem-faulty.new"
    mv "$folder/tmem-faulty.new" "$folder/tmem-faulty"
    cargo build --quiet -p tmem --locked "$@"
}
