//! The folder that containerd's `config_path` names, as far as it holds files of ours.
//!
//! What must hold: a file is ours by its first line alone, and whatever is not ours is neither changed nor shadowed nor
//! removed; a file is always whole, old or new, since it is renamed into place; nothing follows a symbolic link.
//!
//! Of several processes for one owner (an update starts the next before it ends the last) the one that came last has
//! the files; a note beside them names it. Every change is made under a lock on the folder.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::hosts::Mirror;

/// What containerd reads in the folder of a registry.
const HOSTS: &str = "hosts.toml";
/// What it is called until it is whole.
const UNFINISHED: &str = ".hosts.toml.berth";
/// How every file of ours begins; the owner follows.
const MARK: &str = "# managed by berth: ";
/// A first line that is longer is not ours.
const MARK_LENGTH: u64 = 1024;

/// Why the folder could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct FolderError {
    path: String,
    error: io::Error,
}

/// The folder, and whose files in it are ours.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    /// Whoever runs this, like `berth-system/berth`.
    owner: String,
    /// Which of the owner's processes this one is.
    instance: String,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Registries whose files were written.
    pub written: Vec<String>,
    /// Folders whose files were removed.
    pub removed: Vec<String>,
    /// Registries whose configuration is somebody else's, and in what way.
    pub left: Vec<(String, &'static str)>,
}

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// The files are as they are to be.
    Done(Done),
    /// A process that came later has the files.
    Succeeded,
}

impl Folder {
    /// A folder, which need not be there yet.
    pub fn new(root: &Path, owner: &str, instance: &str) -> Self {
        Self {
            root: root.to_owned(),
            owner: owner.to_owned(),
            instance: instance.to_owned(),
        }
    }

    /// Takes the files over from whoever of the same owner came before.
    pub fn take_over(&self) -> Result<(), FolderError> {
        make(&self.root, true)?;
        let _lock = self.lock()?;
        write(&self.root, &self.note(), &self.instance)
    }

    /// Makes the files these, unless a later process has taken over.
    pub fn look(&self, mirrors: &[Mirror]) -> Result<Looked, FolderError> {
        make(&self.root, true)?;
        let _lock = self.lock()?;
        match self.has_files()? {
            Some(instance) if instance != self.instance => return Ok(Looked::Succeeded),
            Some(_) => {}
            // The later one has ended, or somebody has emptied the folder.
            None => write(&self.root, &self.note(), &self.instance)?,
        }
        let mut done = Done::default();
        for mirror in mirrors {
            match self.put(mirror)? {
                Put::Same => {}
                Put::Written => done.written.push(mirror.upstream().to_owned()),
                Put::Left(why) => done.left.push((mirror.upstream().to_owned(), why)),
            }
        }
        let wanted: Vec<String> = mirrors.iter().map(Mirror::folder).collect();
        done.removed = self.remove_but(&wanted)?;
        Ok(Looked::Done(done))
    }

    /// Gives the files up, unless a later process has them; they go if `remove`. The folders that went.
    pub fn give_up(&self, remove: bool) -> Result<Vec<String>, FolderError> {
        if !self.root.is_dir() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        if self.has_files()?.as_ref() != Some(&self.instance) {
            return Ok(Vec::new());
        }
        let removed = if remove { self.remove_but(&[])? } else { Vec::new() };
        delete(&self.root.join(self.note()))?;
        Ok(removed)
    }

    /// Held until it is dropped; the kernel ends it with the process.
    fn lock(&self) -> Result<File, FolderError> {
        let lock = || {
            let folder = File::open(&self.root)?;
            folder.lock()?;
            Ok(folder)
        };
        lock().map_err(at(&self.root))
    }

    fn note(&self) -> String {
        format!(".berth.{}", self.owner.replace('/', "_"))
    }

    fn first_line(&self) -> String {
        format!("{MARK}{}", self.owner)
    }

    /// The process that has the files.
    fn has_files(&self) -> Result<Option<String>, FolderError> {
        let path = self.root.join(self.note());
        match fs::read_to_string(&path) {
            Ok(instance) => Ok(Some(instance)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    fn put(&self, mirror: &Mirror) -> Result<Put, FolderError> {
        let folder = self.root.join(mirror.folder());
        if mirror.folder() != mirror.upstream() && exists(&self.root.join(mirror.upstream()))? {
            return Ok(Put::Left(
                "a folder of its name with a colon is there, which ours would shadow",
            ));
        }
        let text = mirror.text(&self.first_line());
        match self.found(&folder)? {
            Found::Ours if content(&folder.join(HOSTS))? == text => return Ok(Put::Same),
            Found::Ours | Found::Empty => {}
            Found::Nothing => make(&folder, false)?,
            Found::Foreign(why) => return Ok(Put::Left(why)),
        }
        write(&folder, HOSTS, &text)?;
        Ok(Put::Written)
    }

    /// What is in the folder of a registry.
    fn found(&self, folder: &Path) -> Result<Found, FolderError> {
        match fs::symlink_metadata(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(at(folder)(error)),
            Ok(meta) if !meta.is_dir() => return Ok(Found::Foreign("its folder is a link or a file")),
            Ok(_) => {}
        }
        let hosts = folder.join(HOSTS);
        match fs::symlink_metadata(&hosts) {
            Ok(meta) if !meta.is_file() => Ok(Found::Foreign("its hosts.toml is a link or a folder")),
            Ok(_) if first_line(&hosts)? == self.first_line() => Ok(Found::Ours),
            Ok(_) => Ok(Found::Foreign("its hosts.toml is somebody else's")),
            // containerd reads certificates there as long as there is no hosts.toml.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut names = entries(folder)?.into_iter().filter(|name| name != UNFINISHED);
                Ok(names
                    .next()
                    .map_or(Found::Empty, |_| Found::Foreign("its folder holds other files")))
            }
            Err(error) => Err(at(&hosts)(error)),
        }
    }

    /// Removes files of ours in all folders but these, and folders that are then empty.
    fn remove_but(&self, wanted: &[String]) -> Result<Vec<String>, FolderError> {
        let mut removed = Vec::new();
        for name in entries(&self.root)? {
            let folder = self.root.join(&name);
            if wanted.contains(&name) || self.found(&folder)? != Found::Ours {
                continue;
            }
            delete(&folder.join(UNFINISHED))?;
            delete(&folder.join(HOSTS))?;
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => return Err(at(&folder)(error)),
                _ => removed.push(name),
            }
        }
        Ok(removed)
    }
}

/// What came of one mirror.
enum Put {
    Same,
    Written,
    Left(&'static str),
}

/// What a registry's folder holds.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// There is none.
    Nothing,
    /// Nothing.
    Empty,
    /// A file of ours.
    Ours,
    /// What somebody else has put there.
    Foreign(&'static str),
}

fn at(path: &Path) -> impl Fn(io::Error) -> FolderError {
    let path = path.display().to_string();
    move |error| FolderError {
        path: path.clone(),
        error,
    }
}

fn exists(path: &Path) -> Result<bool, FolderError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(path)(error)),
    }
}

/// Makes a folder that everybody may read; with those above it if `deep`.
fn make(path: &Path, deep: bool) -> Result<(), FolderError> {
    match DirBuilder::new().mode(0o755).recursive(deep).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Names in a folder that are text; names of ours are.
fn entries(folder: &Path) -> Result<Vec<String>, FolderError> {
    let names = || {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    };
    names().map_err(at(folder))
}

fn content(path: &Path) -> Result<String, FolderError> {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(at(path))
}

fn first_line(path: &Path) -> Result<String, FolderError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MARK_LENGTH).read_to_end(&mut bytes));
    read.map_err(at(path))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn delete(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Puts a file in place at once, readable by everybody.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), FolderError> {
    let unfinished = folder.join(UNFINISHED);
    // One that a killed process has left, or a link.
    delete(&unfinished)?;
    let put = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&unfinished)?;
        // Whatever the umask says.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, folder.join(name))?;
        File::open(folder)?.sync_all()
    };
    put().map_err(at(&folder.join(name)))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
